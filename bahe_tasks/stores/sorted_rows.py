"""Rows of an array that come in any order, written to a file in theirs, without holding them in memory.

Unusual: rows are first parted into temporary files, each of which belongs to one stretch of the array. Put where they
belong in a mapped file straight away, every few thousand rows would touch pages all over it, and a file larger than what
the system holds back is written to the disk many times over.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

from bahe_tasks.stores.mapped_arrays import map_array

_STRETCH_BYTES = 64 << 20


def write_in_order(
    file: Path,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    *,
    stretch_bytes: int = _STRETCH_BYTES,
) -> np.ndarray:
    """Write a (M, H) float16 array from parts of its rows; return which of the M rows came, bool. The others are zeros.

    A part has numbers of rows (K,) int64 and these rows (K, H) float16. Of a row that comes twice the last one stays. While
    it is written the file takes twice its room. Raises `OSError` where there is none.
    """
    count, width = shape
    rows_a_stretch = max(1, stretch_bytes // (2 * width))
    bounds = np.arange(0, count + rows_a_stretch, rows_a_stretch)
    stretches = [file.with_name(f"{file.name}-{n}") for n in range(len(bounds) - 1)]
    numbers = [stretch.with_name(f"{stretch.name}-rows") for stretch in stretches]
    with ExitStack() as stack:
        opened = [[stack.enter_context(name.open("wb")) for name in names] for names in (numbers, stretches)]
        for rows, values in parts:
            order = np.argsort(rows, kind="stable")
            rows, values = rows[order], values[order]
            ends = np.searchsorted(rows, bounds)
            for n, (start, end) in enumerate(pairwise(ends)):
                opened[0][n].write(rows[start:end].data)
                opened[1][n].write(values[start:end].data)
    array = map_array(file, "<f2", shape, mode="w+")
    came = np.zeros(count, bool)
    for number, stretch in zip(numbers, stretches, strict=True):
        rows = np.fromfile(number, np.int64)
        array[rows] = map_array(stretch, "<f2", (len(rows), width))
        came[rows] = True
        number.unlink()
        stretch.unlink()
    return came
