"""Arrays in files that are mapped into memory: what is read of them is held by the system's cache, which it can drop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np


class CutShortError(ValueError):
    """A file of an array that does not have the bytes it should have."""


def map_array(file: Path, dtype: str, shape: tuple[int, ...], *, mode: Literal["r", "w+"] = "r") -> np.ndarray:
    """Return the array in a file of nothing but its bytes; "w+" makes the file, with zeros.

    Raises `CutShortError`, and `OSError` where there is no file or no room for one.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if mode == "w+":
        with file.open("wb") as new:
            if size and hasattr(os, "posix_fallocate"):  # else a disk that fills up ends the process by a signal
                os.posix_fallocate(new.fileno(), 0, size)
            new.truncate(size)
    elif file.stat().st_size != size:
        raise CutShortError(f"{file} has {file.stat().st_size} bytes, not those of {shape} {dtype}")
    if not size:  # nothing can be mapped
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, mode="r" if mode == "r" else "r+", shape=shape)
