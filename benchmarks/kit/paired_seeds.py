"""AUC of two models on the same rows, each trained with several seeds: mean difference and its interval by user. numpy alone.

The statistics are those of `core.intervals.paired_auc_difference_interval`, to which it is equal for one seed. The seeds
are given, not drawn: the interval says what other users would have given, not what other seeds would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bahe_tasks.core.metrics import auc
from bahe_tasks.core.resampling import Interval, Ranking, percentile_interval, user_resamples


def mean_auc(labels: np.ndarray, scores: Sequence[np.ndarray]) -> float:
    """Return the mean over seeds of the AUC; `scores` has the (R,) of each seed."""
    return float(np.mean([auc(labels, of_seed) for of_seed in scores]))


def mean_auc_difference(
    labels: np.ndarray,
    scores_a: Sequence[np.ndarray],
    scores_b: Sequence[np.ndarray],
    users: np.ndarray,
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Return the mean over seeds of AUC(a) - AUC(b), with the percentile interval over resamples of users.

    A user is drawn with all rows of all seeds. NaN where the rows have one class, or are none; NaN ends where they are of one user.
    """
    distinct, user = np.unique(users, return_inverse=True)
    pairs = [
        (Ranking.of(labels, a, user), Ranking.of(labels, b, user)) for a, b in zip(scores_a, scores_b, strict=True)
    ]
    resampled = [
        np.mean([a.aucs(counts) - b.aucs(counts) for a, b in pairs], axis=0)
        for counts in user_resamples(len(distinct), samples=samples, seed=seed, num_rows=len(labels))
    ]
    estimate = mean_auc(labels, scores_a) - mean_auc(labels, scores_b)
    return percentile_interval(estimate, np.concatenate([np.zeros(0), *resampled]), level)


def rows_for_half_width(interval: Interval, num_rows: int, *, half_width: float) -> float:
    """Return how many rows would give that half-width, if it falls with the root of their number; NaN if unknown."""
    now = (interval.high - interval.low) / 2
    return num_rows * (now / half_width) ** 2 if math.isfinite(now) else float("nan")
