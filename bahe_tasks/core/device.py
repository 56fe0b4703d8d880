"""Which device torch computes on."""

from __future__ import annotations

from typing import Literal

import torch


class DeviceNotFoundError(RuntimeError):
    """A device was asked for that this machine does not have."""


def pick_device(setting: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of `encoder.device`; "auto" is the GPU if there is one. Raises `DeviceNotFoundError`."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise DeviceNotFoundError(
            "encoder.device is cuda, but torch sees no GPU on this machine: set it to auto or cpu"
        )
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")
