"""The protocol all peers run by: each day is scored by what was learned from the days before it, then what became known is learned from.

Rows are positions in one log, in training order, so that a peer can prepare its inputs once. A peer gets the whole log,
labels included, and must read the labels of rows it has learned from alone; `running` means may also read those of
the same day that are known strictly before `shown_at`, as histories do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import NamedTuple, Protocol

import numpy as np

from bahe_tasks.config import Config
from bahe_tasks.core.training_rows import ImpressionRows
from benchmarks.kit.in_memory_log import InMemoryLog, part_of
from benchmarks.kit.label_times import day_of
from benchmarks.kit.replay import replay


class Peer(Protocol):
    """A click model that follows a log day by day."""

    def score(self, rows: slice) -> np.ndarray:
        """Return the click probabilities of a day's rows, (rows,) float64; changes nothing."""
        ...

    def learn(self, rows: np.ndarray) -> None:
        """Take in labels that became known: the places of their rows in the log."""
        ...


class DayRows(NamedTuple):
    """A day, where its rows stand in the log, and those of which the labels are known before the next day."""

    day: date
    rows: slice
    learned: np.ndarray  # (L,) int64


class Scores(NamedTuple):
    """Progressive click probabilities of the rows of a log, and the CPU seconds they cost, training included."""

    probabilities: np.ndarray  # (R,) float64, NaN where a row was not scored
    cpu_s: float


def days_of(log: InMemoryLog, last: date | None = None) -> list[DayRows]:
    """Return the days of a log that have rows, up to `last`."""
    days, starts = np.unique(day_of(log.rows.shown_at), return_index=True)
    ends = [*starts[1:], len(log.rows)]
    order = np.argsort(log.train_days, kind="stable")
    edges = np.searchsorted(log.train_days[order], [*days, days[-1] + 1])
    found = [
        DayRows(day.item(), slice(int(start), int(end)), order[first:stop])
        for day, start, end, (first, stop) in zip(days, starts, ends, pairwise(edges), strict=True)
    ]
    return [of_day for of_day in found if last is None or of_day.day <= last]


def progressive_bahe(log: InMemoryLog, embeddings: np.ndarray, config: Config, *, seed: int) -> Scores:
    """Run BAHE as `config` has it over the days of a log, by the peers' protocol; `embeddings` (M, H) are of the log's texts."""
    days = days_of(log)
    learned = {day: rows for day, _, rows in days}

    def rows_after(day: date) -> ImpressionRows | None:
        return part_of(log.rows, learned[day]) if len(learned[day]) else None

    parts = [(day, part_of(log.rows, rows)) for day, rows, _ in days]
    found, _ = replay(parts, embeddings, config, texts=log.texts, seed=seed, rows_after=rows_after)
    not_scored = np.full(len(log.rows) - len(found.scores), np.nan)
    return Scores(np.concatenate([not_scored, found.scores]), found.train_cpu_s + found.score_cpu_s)


def progressive(peer: Peer, days: Sequence[DayRows], *, num_rows: int) -> Scores:
    """Run a peer over the days of a log of R = `num_rows` rows; none is scored before one is learned from."""
    probabilities = np.full(num_rows, np.nan)
    began = process_time()
    any_learned = False
    for _, rows, learned in days:
        if any_learned:
            probabilities[rows] = peer.score(rows)
        if len(learned):
            peer.learn(learned)
            any_learned = True
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
