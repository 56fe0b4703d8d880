"""What judging the rows of any source has in common: a table of typed rows, and the first reason a row is refused for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import filterfalse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from spark_jobs.arrow_columns import day_number, maps, repeated
from spark_jobs.landed.rows import LandedRows, as_text

REFUSED = pa.schema([("dt", pa.date32()), *((name, pa.string()) for name in ("reason", "source_file", "raw"))])
"""A row for the quarantine."""


@dataclass(frozen=True)
class Judged:
    """R rows of one piece, or part of them."""

    rows: pa.Table
    """Typed, those that are refused too."""
    is_good: np.ndarray  # (R,) bool
    refused: pa.Table
    unknown: frozenset[str]
    """Names of columns that the landing contract does not know."""

    @property
    def good(self) -> pa.Table:
        """The good rows."""
        return self.rows if self.is_good.all() else self.rows.filter(pa.array(self.is_good))


def judged(
    rows: LandedRows,
    typed: dict[str, pa.Array],
    reasons: Sequence[tuple[str, np.ndarray]],
    *,
    known: Sequence[str],
    prefixes: Sequence[str] = (),
) -> Judged:
    """Sort the rows out. `reasons`: each with the rows (R,) bool it holds for; the first that holds counts.

    Before them comes that the file has a column of the contract twice: there is no telling which is meant.
    """
    count, dt, contract = len(rows), rows.piece.dt, _pattern_of(known, prefixes)
    is_repeated = any(map(contract.fullmatch, rows.repeated))
    reasons = [("repeated_column", np.full(count, is_repeated)), *reasons]
    reason = np.zeros(count, np.uint8)  # from 1
    for place in reversed(range(len(reasons))):
        reason[reasons[place][1]] = place + 1
    unread = np.asarray(rows.problems.is_valid())
    is_good = (reason == 0) & ~unread
    refused = np.flatnonzero(~is_good)
    names = pa.array([None, *(name for name, _ in reasons)], pa.string())
    return Judged(
        pa.table({"dt": repeated(dt, pa.date32(), count), **typed}),
        is_good,
        pa.table(
            [
                repeated(dt, pa.date32(), len(refused)),
                pc.coalesce(rows.problems.take(pa.array(refused)), names.take(pa.array(reason[refused]))),
                repeated(rows.piece.file_name, pa.string(), len(refused)),
                pa.array(rows.raws(refused) if len(refused) else [], pa.string()),
            ],
            schema=REFUSED,
        ),
        unknown=frozenset() if unread.all() else frozenset(filterfalse(contract.fullmatch, rows.columns)),
    )


def time_problems(micros: pa.Array, dt: date, *, late_days: int) -> list[tuple[str, np.ndarray]]:
    """Return the reasons that a row's own time (R,) int64, null where it is absent or unreadable, may be refused for."""
    times = np.asarray(pc.fill_null(micros, 0))
    return [
        ("unreadable_time", np.asarray(micros.is_null())),
        ("time_after_day", times >= (day_number(dt) + 1) * DAY_US),
        ("too_late", times < (day_number(dt) - late_days) * DAY_US),
    ]


def times(micros: pa.Array) -> pa.Array:
    """Return microseconds as timestamps."""
    return micros.cast(pa.timestamp("us", "UTC"))


def absent(column: pa.Array) -> np.ndarray:
    """Return where a column is null, (R,) bool."""
    return np.array(column.is_null())


def unreadable(rows: LandedRows, name: str, values: pa.Array) -> np.ndarray:
    """Return where a field is there but `values`, the numbers read of it, is not, (R,) bool. NaN is there."""
    unread = absent(values)
    if unread.any() and name in rows.columns:
        unread[unread] = ~absent(as_text(rows.columns[name].filter(pa.array(unread))))
        return unread
    return np.zeros(len(rows), bool)


def unreadable_time(rows: LandedRows, name: str, micros: pa.Array) -> np.ndarray:
    """Return where a field is there but `micros`, the times read of it, is not, (R,) bool. NaN of a column of floats is not there."""
    return absent(micros) & ~absent(rows.text(name)) if micros.null_count else np.zeros(len(rows), bool)


def any_of(masks: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return where any of the masks (R,) bool holds; `count` is R."""
    return np.logical_or.reduce([np.zeros(count, bool), *masks])


def in_maps(columns: dict[str, pa.Array], is_there: dict[str, np.ndarray], kind: pa.DataType, count: int) -> pa.Array:
    """Return a map from name to value for each of `count` rows, of the columns that are there in it, in the order given."""
    if not columns:
        return maps(pa.array([], pa.string()), pa.array([], kind), np.zeros(count, np.int64))
    there = np.stack([is_there[name] for name in columns], 1)  # (R, names)
    places = np.flatnonzero(there.ravel())
    row, name = np.divmod(places, len(columns))
    values = pa.concat_arrays([column.cast(kind) for column in columns.values()]).take(pa.array(name * count + row))
    return maps(pa.array(list(columns), pa.string()).take(pa.array(name)), values, there.sum(1))


def _pattern_of(known: Sequence[str], prefixes: Sequence[str]) -> re.Pattern[str]:
    """Return what the names of columns match that the landing contract knows."""
    return re.compile("|".join([*map(re.escape, known), *(f"{re.escape(prefix)}.+" for prefix in prefixes)]), re.DOTALL)
