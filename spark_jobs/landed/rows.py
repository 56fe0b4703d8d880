"""What was read of a landed file: its columns as they are there, which rows could not be read, and each row as it landed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.landed.parse_values import instants_of, nulled, numbers_of
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

    def __len__(self) -> int:
        return len(self.problems)

    def text(self, name: str) -> pa.Array:
        """Return one field as text, null where it is absent."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.string())
        return as_text(self.columns[name])

    def number(self, name: str) -> pa.Array:
        """Return one field as a finite double, null where it is absent or cannot be read."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.float64())
        return as_number(self.columns[name])

    def instant(self, name: str) -> pa.Array:
        """Return one field as microseconds since 1970 UTC, int64, null where it is absent or cannot be read."""
        if name not in self.columns:
            return pa.nulls(len(self), pa.int64())
        return as_instant(self.columns[name])

    def prefixed(self, prefix: str) -> list[str]:
        """Return the sorted fields that are named `prefix`NAME."""
        return sorted(name for name in self.columns if name.startswith(prefix) and len(name) > len(prefix))


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as text, null for an empty one."""
    if not pa.types.is_string(column.type):
        return _written_out(column)
    return nulled(column, pc.equal(column, ""))


def as_number(column: pa.Array) -> pa.Array:
    """Return a column as finite doubles, null for what is none."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_float64(kind):
        doubles = column.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_finite(doubles), doubles, pa.scalar(None, pa.float64()))
    return numbers_of(as_text(column))


def as_instant(column: pa.Array) -> pa.Array:
    """Return a column as microseconds since 1970 UTC, int64.

    Whole numbers too great to be seconds are nanoseconds, as pandas writes them.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.unit != "ns":
            return column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
        return _floored(column.cast(pa.int64()), 1000)
    if pa.types.is_integer(kind):
        whole = column.cast(pa.int64())
        is_ns = pc.greater_equal(pc.abs(pc.fill_null(whole, 0)), _LEAST_NANOSECONDS)
        if pc.any(is_ns).as_py():
            seconds = instants_of(as_text(pc.if_else(is_ns, pa.scalar(None, pa.int64()), whole)))
            return pc.if_else(is_ns, _floored(whole, 1000), seconds)
    return instants_of(as_text(column))


def written_out(value: Any) -> str:
    """Return a value of a typed column as text: what stands in the quarantine, and what an id of that type is."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime():
            text = value.strftime("%Y-%m-%d %H:%M:%S")
            return f"{text}.{value.microsecond:06}".rstrip("0") if value.microsecond else text
        case date():
            return value.isoformat()
        case bytes():
            return value.decode("utf-8", "replace")
        case dict() | list():
            return json.dumps(value, default=written_out, ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(value)


_LEAST_NANOSECONDS = 10**15
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _written_out(column: pa.Array) -> pa.Array:
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if pa.types.is_integer(column.type) or pa.types.is_large_string(column.type):
        return as_text(column.cast(pa.string()))
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # Python's times have no nanoseconds
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    texts = [None if value is None else written_out(value) or None for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def _floored(numbers: pa.Array, divisor: int) -> pa.Array:
    absent = np.asarray(numbers.is_null())
    return pa.array(np.floor_divide(np.asarray(pc.fill_null(numbers, 0)), divisor), mask=absent)


def as_json(columns: dict[str, pa.Array], positions: np.ndarray) -> list[str]:
    """Return rows at these positions (K,) int64 of a file of columns, each as one json object of texts."""
    chosen = {name: column.take(pa.array(positions)) for name, column in columns.items()}
    texts = {name: _safe_texts(column) for name, column in chosen.items()}
    rows = zip(*texts.values(), strict=True) if texts else ()
    return [_ENCODER.encode({n: v for n, v in zip(texts, row, strict=True) if v is not None}) for row in rows]


def _safe_texts(column: pa.Array) -> list[str | None]:
    if pa.types.is_string(column.type):  # need not be UTF-8
        column = column.cast(pa.binary())
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return [None if value is None else written_out(value) for value in column.to_pylist()]
