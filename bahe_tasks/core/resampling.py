"""Resamples of users, what AUC is in each of them, and the percentile interval. numpy alone.

The rows of one user are alike, so resampling rows would make an interval too narrow: users are drawn, with all their
rows. A resample is therefore a count per user. No row is copied and no score sorted twice, and sums over rows become
sums over users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CELLS_AT_ONCE = 400_000
"""Rows times resamples in memory at once: 3.2 MB an array, which stays near the core."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval of confidence `level`; NaN where it is undefined."""

    estimate: float
    low: float
    high: float
    level: float


def user_resamples(num_users: int, *, samples: int, seed: int, num_rows: int) -> Iterator[np.ndarray]:
    """Yield (K, U) int64: how often each of U users was drawn in each of the next K resamples; `samples` in all.

    `num_rows` only decides how many come at once. Nothing of fewer than two users: one drawn again and again is no interval.
    """
    if num_users < 2:
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // max(num_rows, num_users))
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        drawn = generator.integers(num_users, size=(count, num_users))
        cell = drawn + np.arange(count)[:, None] * num_users
        yield np.bincount(cell.ravel(), minlength=count * num_users).reshape(count, num_users)


@dataclass(frozen=True)
class Ranking:
    """Non-clicks sorted by score, and for each click how many of them score below it, and below or the same.

    Users are codes 0 to U - 1. Counts are whole numbers, so AUC over a resample is exact, whatever the order of sums.
    """

    user_of_click: np.ndarray
    user_of_non_click: np.ndarray
    below: np.ndarray
    below_or_same: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, user: np.ndarray) -> Ranking:
        """Sort once; labels, scores and user codes are (R,)."""
        click = labels > 0
        order = np.argsort(scores[~click], kind="stable")
        others = scores[~click][order]
        return cls(
            user_of_click=user[click],
            user_of_non_click=user[~click][order],
            below=np.searchsorted(others, scores[click], "left"),
            below_or_same=np.searchsorted(others, scores[click], "right"),
        )

    def aucs(self, counts: np.ndarray) -> np.ndarray:
        """Return the AUC of each of (K, U) resamples; NaN where the rows drawn have one class."""
        passed = np.zeros((len(counts), len(self.user_of_non_click) + 1), np.int64)
        np.cumsum(np.take(counts, self.user_of_non_click, axis=1), axis=1, out=passed[:, 1:])
        clicks = np.take(counts, self.user_of_click, axis=1)
        twice_below = np.take(passed, self.below, axis=1) + np.take(passed, self.below_or_same, axis=1)
        pairs = clicks.sum(1).astype(np.float64) * passed[:, -1]
        with np.errstate(invalid="ignore"):
            return np.einsum("ij,ij->i", clicks, twice_below) / 2 / pairs


def percentile_interval(
    estimate: float, resampled: np.ndarray, level: float, *, upper: np.ndarray | None = None
) -> Interval:
    """Return the interval between the percentiles of the resampled values; NaN among them are left out.

    `upper` are the values the upper end is taken from, where they are not the same.
    """
    low = _percentile(resampled, (1 - level) / 2)
    return Interval(estimate, low, _percentile(resampled if upper is None else upper, (1 + level) / 2), level)


def sum_by_user(user: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sum of values over the rows of each user code, float64."""
    return np.bincount(user, np.asarray(values, np.float64))


def _percentile(values: np.ndarray, share: float) -> float:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan")
    # A quantile that is one of the values: between a number and infinity there is nothing to interpolate.
    return float(np.quantile(values, share, method="inverted_cdf"))
