"""What was read of a landed file: its columns as they are there, which rows could not be read, and each row as it landed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.landed.parse_values import finite, instants_of, labels_of, nulled, numbers_of, whole_numbers
from spark_jobs.landed.pieces import Piece


@dataclass(frozen=True)
class LandedRows:
    """R rows of one piece. A field that is null or an empty text is absent; all are in a row that could not be read."""

    piece: Piece
    columns: dict[str, pa.Array]
    """By field, of whatever type the file has; null in rows that could not be read."""
    problems: pa.Array
    """Why a row could not be read, string; else null."""
    raws: Callable[[np.ndarray], list[str]]
    """The rows at these positions (K,) int64 as they landed."""
    repeated: frozenset[str] = frozenset()
    """Names that several columns of the file have; of those the first is there."""

    def __len__(self) -> int:
        return len(self.problems)

    def text(self, name: str) -> pa.Array:
        """Return one field as text, null where it is absent. A whole number is written as one, NaN is absent.

        pandas writes a column of whole numbers as floats, with NaN for what is absent.
        """
        if name not in self.columns:
            return pa.nulls(len(self), pa.string())
        column = self.columns[name]
        if not pa.types.is_floating(column.type):
            return as_text(column)
        values = np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan))
        is_whole = (values == np.floor(values)) & (np.abs(values) < 2**53)
        whole = pa.array(np.where(is_whole, values, 0).astype(np.int64)).cast(pa.string())
        return nulled(pc.if_else(is_whole, whole, as_text(column)), pa.array(np.isnan(values)))

    def number(self, name: str) -> pa.Array:
        """Return one field as a finite double, null where it is absent or cannot be read."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.float64())
        return as_number(self.columns[name])

    def label(self, name: str) -> pa.Array:
        """Return one field as int32, null where it is absent or no whole number; true is 1, false is 0."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.int32())
        return as_label(self.columns[name])

    def instant(self, name: str) -> pa.Array:
        """Return one field as microseconds since 1970 UTC, int64, null where it is absent or cannot be read."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.int64())
        return as_instant(self.columns[name])

    def prefixed(self, prefix: str) -> list[str]:
        """Return the sorted fields that are named `prefix`NAME."""
        return sorted(name for name in self.columns if name.startswith(prefix) and len(name) > len(prefix))


def repeated_names(names: Sequence[str]) -> frozenset[str]:
    """Return the names that stand there more than once."""
    return frozenset(name for name, times in Counter(names).items() if times > 1)


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as text, null for an empty one."""
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    if not pa.types.is_string(kind):
        return pa.array([(text and unescaped(text)) or None for text in escaped_texts(column)], pa.string())
    return nulled(column, pc.equal(column, ""))


def as_number(column: pa.Array) -> pa.Array:
    """Return a column as finite doubles, null for what is none; there is one zero."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_float64(kind):
        return finite(pc.add(column.cast(pa.float64(), safe=False), 0.0))
    return pc.add(numbers_of(as_text(column)), 0.0)


def as_label(column: pa.Array) -> pa.Array:
    """Return a column as int32, null for what is no whole number; true is 1, false is 0."""
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int32())
    return whole_numbers(labels_of(column) if pa.types.is_string(column.type) else as_number(column))


def as_instant(column: pa.Array) -> pa.Array:
    """Return a column as microseconds since 1970 UTC, int64.

    Whole numbers too great to be microseconds are nanoseconds, as pandas writes them.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _in_micros(column.cast(pa.int64()), kind.unit)
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            column = pc.if_else(pc.greater(column, pa.scalar(2**63 - 1, kind)), pa.scalar(None, kind), column)
        whole = column.cast(pa.int64())
        is_ns = pc.greater_equal(pc.abs(pc.fill_null(whole, 0)), _LEAST_NANOSECONDS)
        if pc.any(is_ns).as_py():
            seconds = instants_of(as_text(pc.if_else(is_ns, pa.scalar(None, pa.int64()), whole)))
            return pc.if_else(is_ns, _in_micros(whole, "ns"), seconds)
    return instants_of(as_text(column))


def as_json(columns: dict[str, pa.Array], positions: np.ndarray) -> list[str]:
    """Return rows at these positions (K,) int64 of a file of columns, each as one json object of texts."""
    chosen = {name: escaped_texts(column.take(pa.array(positions))) for name, column in columns.items()}
    rows = zip(*chosen.values(), strict=True) if chosen else ()
    named = ({n: unescaped(v) for n, v in zip(chosen, row, strict=True) if v is not None} for row in rows)
    return [_ENCODER.encode(row) for row in named]


def escaped_texts(column: pa.Array) -> list[str | None]:
    """Return each value as text: what stands in the quarantine, and what an id of that type is.

    A byte that is not UTF-8 is half a surrogate pair (Python's `surrogateescape`).
    """
    kind = column.type
    if pa.types.is_timestamp(kind):  # by Arrow, which knows times that Python does not
        texts = column.cast(pa.int64()).cast(pa.timestamp(kind.unit)).cast(pa.string())
        texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+$", r"\1")
        return pc.utf8_rtrim(texts, ".").to_pylist()
    if pa.types.is_temporal(kind):
        return column.cast(pa.string()).to_pylist()
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        there = np.asarray(column.is_valid()).tolist()
        values = np.asarray(pc.fill_null(column, 0)) if column.null_count else np.asarray(column)
        return [str(value) if is_there else None for value, is_there in zip(values, there, strict=True)]
    compact = pa.concat_arrays([column])  # Arrow 25 ends the process when it casts maps that were taken or filtered
    return [None if value is None else _written_out(value) for value in compact.cast(_with_bytes(kind)).to_pylist()]


def unescaped(text: str) -> str:
    """Return a text in which what is not UTF-8 is replaced."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def written_out(value: Any) -> str:
    """Return a value of a json document as text."""
    return unescaped(_written_out(value))


_LEAST_NANOSECONDS = 10**17
"""In 1973, and in the year 5138 if they were microseconds, which are refused: as nanoseconds they would be known too early."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def _written_out(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return json.dumps(value, default=_written_out, ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(value)


def _with_bytes(kind: pa.DataType) -> pa.DataType:
    """Return the type with bytes in place of texts, which need not be UTF-8, and with texts in place of times."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.binary()
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _with_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_bytes(kind.key_type), _with_bytes(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_with_bytes(kind.value_type))
    return kind


def _in_micros(numbers: pa.Array, unit: str) -> pa.Array:
    """Return whole numbers of a unit as microseconds; null where there are no such microseconds."""
    values = np.asarray(pc.fill_null(numbers, 0))
    absent = np.array(numbers.is_null())
    if unit == "ns":
        return pa.array(np.floor_divide(values, 1000), mask=absent)
    most = (2**63 - 1) // _MICROS[unit]
    absent |= (values > most) | (values < -most)
    return pa.array(np.where(absent, 0, values) * _MICROS[unit], mask=absent)
