"""The protocol all peers run by: each day is scored by what was learned from the days before it, then learned from.

Rows are positions in one log, in training order, so that a peer can prepare its inputs once. A peer gets the whole log,
labels included, and must read the labels of rows it has learned from alone; `running` means may also read those of
earlier rows of the same day (strictly earlier `shown_at`), as histories do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from time import process_time
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.kit.in_memory_log import InMemoryLog

EPOCH = date(1970, 1, 1)
_DAY_US = 86_400_000_000


class Peer(Protocol):
    """A click model that follows a log day by day."""

    def score(self, rows: slice) -> np.ndarray:
        """Return the click probabilities of a day's rows, (rows,) float64; changes nothing."""
        ...

    def learn(self, rows: slice) -> None:
        """Take in the labels of the rows of a day that was scored."""
        ...


class DayRows(NamedTuple):
    """A day and where its rows stand in the log."""

    day: date
    rows: slice


class Scores(NamedTuple):
    """Progressive click probabilities of the rows of a log, and the CPU seconds they cost, training included."""

    probabilities: np.ndarray  # (R,) float64, NaN where a row was not scored
    cpu_s: float


def days_of(log: InMemoryLog, last: date | None = None) -> list[DayRows]:
    """Return the days of a log that have rows, up to `last`."""
    numbers, starts = np.unique(log.rows.shown_at // _DAY_US, return_index=True)
    ends = [*starts[1:], len(log.rows)]
    days = [date.fromordinal(EPOCH.toordinal() + int(number)) for number in numbers]
    return [
        DayRows(day, slice(int(start), int(end)))
        for day, start, end in zip(days, starts, ends, strict=True)
        if last is None or day <= last
    ]


def progressive(peer: Peer, days: Sequence[DayRows], *, num_rows: int) -> Scores:
    """Run a peer over the days of a log of R = `num_rows` rows; the first day is learned from alone."""
    probabilities = np.full(num_rows, np.nan)
    began = process_time()
    for number, (_, rows) in enumerate(days):
        if number:
            probabilities[rows] = peer.score(rows)
        peer.learn(rows)
    return Scores(probabilities, process_time() - began)


def cached(file: Path, compute: Callable[[], Scores]) -> Scores:
    """Return what the .npz `file` holds, or compute and keep it there."""
    if file.exists():
        with np.load(file) as kept:
            return Scores(kept["probabilities"], float(kept["cpu_s"]))
    scores = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{os.getpid()}.npz")
    np.savez_compressed(half, probabilities=scores.probabilities, cpu_s=scores.cpu_s)
    os.replace(half, file)
    return scores
