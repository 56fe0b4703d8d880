"""Arrays in files that are mapped into memory: what is read of them is held by the system's cache, which it can drop."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class CutShortError(ValueError):
    """A file of an array that does not have the bytes it should have."""


def map_array(file: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array in a file of nothing but its bytes. Raises `CutShortError`, and `OSError` where there is no file."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if file.stat().st_size != size:
        raise CutShortError(f"{file} has {file.stat().st_size} bytes, not those of {shape} {dtype}")
    if not size:  # nothing can be mapped
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, mode="r", shape=shape)
