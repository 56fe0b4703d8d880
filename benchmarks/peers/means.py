"""Smoothed means of users and items, and their sum in log-odds: what any click model has to beat.

A mean is (clicks + weight · base) / (impressions + weight), where base is the mean of all earlier rows; the sum is
logit(user mean) + logit(item mean) - logit(base).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from benchmarks.kit.in_memory_log import InMemoryLog

Of = Literal["user", "item", "sum"]
DAY_US = 86_400_000_000


class Sums(NamedTuple):
    """Sums of a value over rows of the same id before each row, and how many those are; (R,) float64."""

    totals: np.ndarray
    counts: np.ndarray


def smoothed(sums: Sums, base: np.ndarray, *, weight: float) -> np.ndarray:
    """Return the means, drawn to `base` (R,) as if by `weight` rows."""
    return (sums.totals + weight * base) / (sums.counts + weight)


def sums_before(ids: np.ndarray, values: np.ndarray, times: np.ndarray, *, newest: int | None = None) -> Sums:
    """Sum over rows of the same id at strictly earlier times, or over the `newest` of them; all (R,), times ascending."""
    if not len(ids):
        return Sums(np.empty(0), np.empty(0))
    order = np.argsort(ids, kind="stable")
    ids, times = ids[order], times[order]
    new_id = np.r_[True, ids[1:] != ids[:-1]]
    new_time = new_id | np.r_[True, times[1:] != times[:-1]]
    positions = np.arange(len(ids))
    first = np.maximum.accumulate(np.where(new_id, positions, 0))
    end = np.maximum.accumulate(np.where(new_time, positions, 0))
    if newest is not None:
        first = np.maximum(first, end - newest)
    running = np.r_[0.0, np.cumsum(values[order], dtype=np.float64)]
    totals, counts = np.empty((2, len(ids)))
    totals[order] = running[end] - running[first]
    counts[order] = end - first
    return Sums(totals, counts)


class MeansPeer:
    """Means of counts of earlier days, or if `running` of all earlier impressions that the log's numbers count."""

    def __init__(self, log: InMemoryLog, of: Of, *, running: bool, user_weight: float = 4.0, item_weight: float = 4.0):
        rows = log.rows
        labels, times = rows.labels, log.counted_at if running else rows.shown_at // DAY_US
        half = np.full(len(rows), 0.5)
        base = smoothed(sums_before(np.zeros(len(rows), np.int64), labels, times), half, weight=2.0)
        user = smoothed(sums_before(rows.user_ids, labels, times), base, weight=user_weight)
        item = smoothed(sums_before(rows.item_ids, labels, times), base, weight=item_weight)
        both = 1 / (1 + np.exp(logit(base) - logit(user) - logit(item)))
        self._scores = {"user": user, "item": item, "sum": both}[of]

    def score(self, rows: slice) -> np.ndarray:
        return self._scores[rows]

    def learn(self, rows: slice) -> None:
        """Do nothing: the sums of a row end before it."""


def logit(p: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), p kept away from 0 and 1."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return np.log(p) - np.log1p(-p)
