"""Smoothed means of users and items, and their sum in log-odds: what any click model has to beat.

A mean is (clicks + weight · base) / (impressions + weight), where base is the mean of all earlier rows; the sum is
logit(user mean) + logit(item mean) - logit(base).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Of = Literal["user", "item", "sum"]


@dataclass(frozen=True)
class Counts:
    """Clicks and impressions of the same id before each row, (R,) float64."""

    clicks: np.ndarray
    impressions: np.ndarray

    def smoothed(self, base: np.ndarray, weight: float) -> np.ndarray:
        """Return the mean, drawn to `base` as if by `weight` impressions."""
        return (self.clicks + weight * base) / (self.impressions + weight)


def counts_before(ids: np.ndarray, labels: np.ndarray, times: np.ndarray) -> Counts:
    """Count rows of the same id at strictly earlier times; all (R,), `times` ascending."""
    order = np.argsort(ids, kind="stable")
    codes = np.unique(ids, return_inverse=True)[1][order]
    first = np.searchsorted(codes, codes)  # of the rows with this id
    times = times[order]
    same = np.r_[False, (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])]
    positions = np.arange(len(ids))
    before = np.maximum.accumulate(np.where(same, 0, positions))  # rows of the same id and time count together
    total = np.r_[0.0, np.cumsum(labels[order], dtype=np.float64)]
    clicks, impressions = np.empty(len(ids)), np.empty(len(ids))
    clicks[order] = total[before] - total[first]
    impressions[order] = before - first
    return Counts(clicks, impressions)


class MeansPeer:
    """Means of counts of earlier days, or with `running` of all earlier impressions."""

    def __init__(
        self,
        of: Of,
        *,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        labels: np.ndarray,
        shown_at: np.ndarray,
        running: bool,
        user_weight: float = 4.0,
        item_weight: float = 4.0,
    ) -> None:
        times = shown_at if running else shown_at // 86_400_000_000
        base = counts_before(np.zeros(len(labels), np.int64), labels, times).smoothed(np.full(len(labels), 0.5), 2.0)
        user = counts_before(user_ids, labels, times).smoothed(base, user_weight)
        item = counts_before(item_ids, labels, times).smoothed(base, item_weight)
        self._scores = {"user": user, "item": item, "sum": _expit(_logit(user) + _logit(item) - _logit(base))}[of]

    def score(self, rows: slice) -> np.ndarray:
        return self._scores[rows]

    def learn(self, rows: slice) -> None:
        """Do nothing: every row's counts end before it."""


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
