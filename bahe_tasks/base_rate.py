"""The share of clicks in the log that a day starts from, and what stands for it until a first label is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bahe_tasks.running_sums import BASE_PRIOR, MIN_RATE


@dataclass(frozen=True)
class BaseRate:
    """Clicks among the labels known before a day, as they count at its start.

    On the first day that has labels nothing is known at its start. Its labels are then expected to be as those up to them:
    against one half, the record of everyone met on the first day of a log with few clicks would stay wrong for months.
    """

    clicks: float
    labels: float
    first_us: np.ndarray
    """Distinct times of the day's labels, sorted, (T,) int64; none unless no label was known before."""
    first_rates: np.ndarray
    """The rate of the labels up to each of them, (T,) float64."""

    @classmethod
    def before(cls, clicks: float, labels: float, of_day_us: np.ndarray, of_day: np.ndarray) -> BaseRate:
        """Return it for a day whose own labels `of_day` (L,) count from `of_day_us` (L,)."""
        times, rates = np.zeros(0, np.int64), np.zeros(0)
        if labels == 0:
            times, at = np.unique(of_day_us, return_inverse=True)
            counts, sums = (np.cumsum(np.bincount(at.reshape(-1), of, len(times))) for of in (None, of_day))
            rates = _smoothed(sums, counts)
        return cls(clicks, labels, times, rates)

    @property
    def at_start(self) -> float:
        """The smoothed rate; one half where nothing is known."""
        return float(_smoothed(self.clicks, self.labels))

    @property
    def known(self) -> float:
        """The smoothed rate, NaN where nothing is known."""
        return self.at_start if self.labels > 0 else float("nan")

    def of_facts(self, time_us: np.ndarray) -> np.ndarray:
        """Return what labels that count from these times (F,) were expected to be, (F,) float64."""
        if not len(self.first_us):
            return np.full(len(time_us), self.at_start)
        return np.append(self.first_rates, self.at_start)[np.searchsorted(self.first_us, time_us, side="right") - 1]


def _smoothed(clicks: np.ndarray | float, labels: np.ndarray | float) -> np.ndarray:
    return np.clip((clicks + BASE_PRIOR[0]) / (labels + BASE_PRIOR[1]), MIN_RATE, 1 - MIN_RATE)
