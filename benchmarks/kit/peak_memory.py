"""How much a process grows while something runs. No package beyond torch is needed where /proc is (GPU machines)."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

_SAMPLE_EVERY_S = 0.01
_SAMPLE_CHILDREN_EVERY_S = 0.1
_STATM = Path("/proc/self/statm")


class PeakMemory:
    """Context in which memory is watched; `grown_mb` is the peak above the start, in MB.

    On a CUDA device it is what torch has allocated there, exactly; else the resident memory of this process, sampled,
    or with `of_children` that of the processes it started (Spark's JVM and what that started) instead. Without
    `count_files` pages of files this process has mapped are left out, where /proc is: the system drops them when it
    needs room.
    """

    def __init__(
        self, device: torch.device | None = None, *, of_children: bool = False, count_files: bool = True
    ) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._resident_bytes = (
            _resident_bytes_of_children if of_children else partial(_resident_bytes, count_files=count_files)
        )
        self._sample_every_s = _SAMPLE_CHILDREN_EVERY_S if of_children else _SAMPLE_EVERY_S

    def __enter__(self) -> PeakMemory:
        if self._device is not None:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = self._peak = torch.cuda.memory_allocated(self._device)
            return self
        self._start = self._peak = self._resident_bytes()
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._device is not None:
            self._peak = torch.cuda.max_memory_allocated(self._device)
            return
        self._over.set()
        self._sampler.join()

    @property
    def grown_mb(self) -> float:
        return (self._peak - self._start) / 1e6

    @property
    def peak_mb(self) -> float:
        return self._peak / 1e6

    def _sample(self) -> None:
        while not self._over.wait(self._sample_every_s):
            self._peak = max(self._peak, self._resident_bytes())


def _resident_bytes(*, count_files: bool) -> int:
    if _STATM.exists():
        resident, of_files = map(int, _STATM.read_text().split()[1:3])
        return (resident if count_files else resident - of_files) * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return psutil.Process().memory_info().rss


def _resident_bytes_of_children() -> int:
    import psutil

    total = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # one that has just ended
            total += child.memory_info().rss
    return total
