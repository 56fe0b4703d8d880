"""A device that runs out of memory is given half as much at once."""

from __future__ import annotations

import logging

import torch

_LOG = logging.getLogger(__name__)


class Halving:
    """Halves what does not fit `device`, and says so the first time: how many `unit` it goes on with, and the `advice`."""

    def __init__(self, device: torch.device, *, unit: str, advice: str) -> None:
        self._device, self._unit, self._advice = device, unit, advice
        self._said = False

    def of(self, tried: int) -> int:
        """Return half of the number that did not fit, at least 2, rounded down.

        To be called once the `torch.OutOfMemoryError` is gone: its frames hold the tensors that are to be freed.
        """
        half = tried // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._said:
            _LOG.warning(
                "the device ran out of memory: going on with %d %s or fewer. %s", half, self._unit, self._advice
            )
        self._said = True
        return half
