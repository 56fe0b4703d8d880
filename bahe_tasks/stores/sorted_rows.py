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

_STRETCH_BYTES = 64 << 20
_MOST_STRETCHES = 128
"""Each keeps two files open."""


def write_in_order(
    file: Path,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    *,
    stretch_bytes: int = _STRETCH_BYTES,
) -> np.ndarray:
    """Write a (M, H) float16 array from parts of its rows; return which of the M rows were among them, bool.

    A part has numbers of rows (K,) int64 and these rows (K, H) float16. Of a row that comes twice the last one stays; rows
    that do not come are zeros. Held in memory at a time: a part and a stretch. Raises `IndexError` for a row beyond M.
    """
    count, width = shape
    rows_a_stretch = max(1, stretch_bytes // (2 * width), -(-count // _MOST_STRETCHES))
    bounds = [*range(0, count, rows_a_stretch), count]
    stretches = [file.with_name(f"{file.name}-{n}") for n in range(len(bounds) - 1)]
    row_numbers = [stretch.with_name(f"{stretch.name}-rows") for stretch in stretches]
    with ExitStack() as stack:
        of_numbers, of_rows = (
            [stack.enter_context(name.open("wb")) for name in names] for names in (row_numbers, stretches)
        )
        for numbers, rows in parts:
            order = np.argsort(numbers, kind="stable")
            numbers, rows = numbers[order], rows[order]
            if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < count:
                raise IndexError(f"rows {numbers[0]} to {numbers[-1]} of an array of {count}")
            places = pairwise(np.searchsorted(numbers, bounds))
            for numbers_file, rows_file, (start, end) in zip(of_numbers, of_rows, places, strict=True):
                numbers_file.write(numbers[start:end].data)
                rows_file.write(rows[start:end].data)
    is_written = np.zeros(count, bool)
    with file.open("wb") as whole:
        for numbers_name, stretch, (start, end) in zip(row_numbers, stretches, pairwise(bounds), strict=True):
            numbers = np.fromfile(numbers_name, np.int64)
            rows = np.zeros((end - start, width), "<f2")
            rows[numbers - start] = np.fromfile(stretch, "<f2").reshape(-1, width)
            is_written[numbers] = True
            rows.tofile(whole)
            numbers_name.unlink()
            stretch.unlink()
    return is_written
