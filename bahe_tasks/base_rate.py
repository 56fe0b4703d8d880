"""The share of clicks in the log that a day starts from, and what stands for it until a first label is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bahe_tasks.running_sums import BASE_PRIOR, MIN_RATE

_MOST_TIMES = 86_400
"""Each task is given them. Which are kept depends on when labels count, not on what they are."""


@dataclass(frozen=True)
class BaseRate:
    """Clicks among the labels that days before have counted, as they count at the start of a day.

    On the first day that counts any, nothing is known at its start. What it asks and counts is then measured against its
    labels so far: against one half, everyone met on the first day of a log with few clicks would stay wrong for months.
    """

    clicks: float
    labels: float
    first_us: np.ndarray
    """Times of such a day's labels, sorted, (T,) int64: the distinct ones, or `_MOST_TIMES` of them; none on other days."""
    first_rates: np.ndarray
    """The rate of the labels up to each of them, (T,) float64."""

    @classmethod
    def before(cls, clicks: float, labels: float, of_day_us: np.ndarray, of_day: np.ndarray) -> BaseRate:
        """Return it for a day whose own labels `of_day` (L,) count from `of_day_us` (L,)."""
        times, rates = np.zeros(0, np.int64), np.zeros(0)
        if labels == 0:
            times, at = np.unique(of_day_us, return_inverse=True)
            counts, sums = (np.cumsum(np.bincount(at.reshape(-1), of, len(times))) for of in (None, of_day))
            kept = np.linspace(0, len(times) - 1, min(len(times), _MOST_TIMES)).astype(np.int64)
            times, rates = times[kept], _smoothed(sums, counts)[kept]
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
        """Return the rate up to and with these times (F,), (F,) float64. Who reads a fact comes after it, so knows that rate."""
        return self._rates(np.searchsorted(self.first_us, time_us, side="right"))

    def of_questions(self, time_us: np.ndarray) -> np.ndarray:
        """Return the rate strictly before these times (Q,), (Q,) float64."""
        return self._rates(np.searchsorted(self.first_us, time_us, side="left"))

    def _rates(self, stop: np.ndarray) -> np.ndarray:
        return np.append(self.at_start, self.first_rates)[stop]


def _smoothed(clicks: np.ndarray | float, labels: np.ndarray | float) -> np.ndarray:
    return np.clip((clicks + BASE_PRIOR[0]) / (labels + BASE_PRIOR[1]), MIN_RATE, 1 - MIN_RATE)
