"""Arrays in files that are mapped into memory: what is read of them is held by the system's cache, which it can drop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np


class CutShortError(ValueError):
    """A file of an array that does not have the bytes it should have."""


def map_array(file: Path, dtype: str, shape: tuple[int, ...], *, mode: Literal["r", "w+"] = "r") -> np.ndarray:
    """Return the array in a file of nothing but its bytes; "w+" makes the file, with zeros.

    Raises `CutShortError`, and `OSError` where there is no file.
    """
    count = int(np.prod(shape))
    if mode == "r" and file.stat().st_size != count * np.dtype(dtype).itemsize:
        raise CutShortError(f"{file} has {file.stat().st_size} bytes, not those of {shape} {dtype}")
    if count == 0:  # nothing can be mapped
        file.touch()
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, mode=mode, shape=shape)
