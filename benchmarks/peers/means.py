"""Smoothed means of users and items, and their sum in log-odds: what any click model has to beat.

A mean is (clicks + weight · base) / (impressions + weight), where base is the mean of all earlier rows; the sum is
logit(user mean) + logit(item mean) - logit(base).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.kit.label_times import day_of

Of = Literal["user", "item", "sum"]


class Sums(NamedTuple):
    """Sums of a value over rows of the same id before each row, and how many those are; (R,) float64."""

    totals: np.ndarray
    counts: np.ndarray


def smoothed(sums: Sums, base: np.ndarray, *, weight: float) -> np.ndarray:
    """Return the means, drawn to `base` (R,) as if by `weight` rows."""
    return (sums.totals + weight * base) / (sums.counts + weight)


def sums_before(
    ids: np.ndarray,
    values: np.ndarray,
    times: np.ndarray,
    *,
    known: np.ndarray | None = None,
    newest: int | None = None,
) -> Sums:
    """Sum the values of the same id that are known at strictly earlier times, or the `newest` of them; all (R,).

    `known`: when each value is, in the unit of `times`; at its own time unless given.
    """
    code = np.unique(ids, return_inverse=True)[1].reshape(-1)
    known = times if known is None else known
    order = np.lexsort((known, code))
    rank = np.unique(np.concatenate([known, times]), return_inverse=True)[1].reshape(-1)
    facts = (code * len(rank) + rank[: len(code)])[order]
    first = np.searchsorted(facts, code * len(rank))
    end = np.searchsorted(facts, code * len(rank) + rank[len(code) :])
    if newest is not None:
        first = np.maximum(first, end - newest)
    running = np.r_[0.0, np.cumsum(values[order], dtype=np.float64)]
    return Sums(running[end] - running[first], (end - first).astype(np.float64))


class MeansPeer:
    """Means of counts of earlier days, or if `running` of all earlier impressions that the log's numbers count."""

    def __init__(self, log: InMemoryLog, of: Of, *, running: bool, user_weight: float = 4.0, item_weight: float = 4.0):
        rows = log.rows
        labels, half = rows.labels, np.full(len(rows), 0.5)
        times, known = (log.counted_at, log.known_at) if running else (day_of(rows.shown_at), log.train_days)
        everywhere = np.zeros(len(rows), np.int64)
        base, user, item = (
            sums_before(ids, labels, times, known=known) for ids in (everywhere, rows.user_ids, rows.item_ids)
        )
        base_rate = smoothed(base, half, weight=2.0)
        user_mean = smoothed(user, base_rate, weight=user_weight)
        item_mean = smoothed(item, base_rate, weight=item_weight)
        both = 1 / (1 + np.exp(logit(base_rate) - logit(user_mean) - logit(item_mean)))
        self._scores = {"user": user_mean, "item": item_mean, "sum": both}[of]

    def score(self, rows: slice) -> np.ndarray:
        return self._scores[rows]

    def learn(self, rows: np.ndarray) -> None:
        """Do nothing: the sums of a row end before it."""


def logit(p: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), p kept away from 0 and 1."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return np.log(p) - np.log1p(-p)
