"""Arrow columns as numpy arrays, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.behavior_key import KEY_DIGITS

_FACTORS = np.random.default_rng(0).integers(2**63, size=64, dtype=np.uint64) | np.uint64(1)
_LAST_FACTOR = 63
_HASHED_AT_ONCE = 1 << 14
ODD_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the upper bits of a product depend on all bits of the factor (Knuth, volume 3, 6.4)."""
Column: TypeAlias = pa.ChunkedArray | pa.Array


def whole(column: Column) -> pa.Array:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def micros(times: Column, *, absent: int = 0) -> np.ndarray:
    """Return timestamps as microseconds since 1970, int64; null is `absent`."""
    return np.asarray(pc.fill_null(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), absent))


def day_numbers(days: Column) -> np.ndarray:
    """Return dates as days since 1970, int64; none may be null."""
    return np.asarray(days.cast(pa.date32()).cast(pa.int32()), np.int64)


def day_number(day: date) -> int:
    """Return a date as days since 1970."""
    return (day - date(1970, 1, 1)).days


def present(column: Column) -> np.ndarray:
    """Return where a column is not null."""
    return np.asarray(pc.is_valid(whole(column)))


def floats(numbers: Column) -> np.ndarray:
    """Return numbers as float64, null as NaN."""
    return np.asarray(pc.fill_null(numbers.cast(pa.float64()), np.nan))


def numbered(texts: Column) -> tuple[np.ndarray, list[str]]:
    """Return for each text its place among the distinct ones in sorted order, -1 for null, and those."""
    encoded = pc.dictionary_encode(whole(texts).cast(pa.string()))
    distinct = encoded.dictionary.to_pylist()
    order = sorted(range(len(distinct)), key=distinct.__getitem__)
    rank = np.empty(len(distinct) + 1, np.int64)
    rank[order], rank[-1] = np.arange(len(distinct)), -1
    return rank[np.asarray(pc.fill_null(encoded.indices, len(distinct)), np.int64)], [distinct[n] for n in order]


def text_hashes(texts: pa.Array) -> np.ndarray:
    """Return a hash of each text, (R,) uint64: the same for the same bytes, on every machine. None may be null."""
    parts = [_hashes(texts.slice(start, _HASHED_AT_ONCE)) for start in range(0, len(texts), _HASHED_AT_ONCE)]
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def key_numbers(keys: pa.Array) -> np.ndarray | None:
    """Return a number for each key from its first eight digits, (K,) uint64, spread evenly; `None` unless all are sha256 in hex."""
    _, offsets, values = keys.buffers()
    starts = np.frombuffer(offsets, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    if not len(keys) or keys.null_count or (np.diff(starts) != KEY_DIGITS).any():
        return None
    digits = np.frombuffer(values, np.uint8)[starts[0] : starts[-1]].reshape(-1, KEY_DIGITS)
    return np.ascontiguousarray(digits[:, :8]).view(np.uint64).ravel() * ODD_MULTIPLIER


def _hashes(texts: pa.Array) -> np.ndarray:
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    there = lengths > 0
    places = np.arange(offsets[-1] - offsets[0], dtype=np.int32) - np.repeat(starts, lengths)
    values = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    sums = np.zeros(len(texts), np.uint64)
    sums[there] = np.add.reduceat((values + np.uint64(1)) * _FACTORS[places & _LAST_FACTOR], starts[there])
    return ((sums ^ (sums >> np.uint64(29))) * ODD_MULTIPLIER) >> np.uint64(16)


def lists(values: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    """Return consecutive values as lists of the given lengths."""
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), values)


def maps(keys: pa.Array, values: pa.Array, lengths: np.ndarray) -> pa.MapArray:
    """Return consecutive entries as maps of the given sizes."""
    return pa.MapArray.from_arrays(pa.array(_offsets(lengths)), keys, values)


class Entries(NamedTuple):
    """The entries of a column of maps."""

    row: np.ndarray  # (E,) int64
    keys: pa.Array
    values: pa.Array


def entries(column: pa.MapArray) -> Entries:
    """Return the entries of maps, row after row; a null has none, as tables and `maps` write it."""
    offsets = np.asarray(column.offsets)
    length = offsets[-1] - offsets[0]
    row = np.repeat(np.arange(len(column)), np.diff(offsets))
    return Entries(row, column.keys.slice(offsets[0], length), column.items.slice(offsets[0], length))


def nullable(numbers: np.ndarray) -> pa.Array:
    """Return numbers as doubles, NaN as null."""
    return pa.array(numbers, pa.float64(), mask=np.isnan(numbers))


def repeated(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    """Return a column of one value."""
    return pa.repeat(pa.scalar(value, kind), count)


def runs(*sorted_columns: np.ndarray) -> np.ndarray:
    """Return where rows differ from the row before in any of the columns: the first row of each run, (R,) bool."""
    begins = np.zeros(len(sorted_columns[0]), bool)
    begins[:1] = True
    for column in sorted_columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
