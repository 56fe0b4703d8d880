"""Bootstrap intervals by user: of every metric, of their averages over days, and of what the gate asks. numpy alone.

Percentile intervals, with users as the units drawn. Source: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, section 13.3. The expected calibration error is an exception, see `resampled_metrics.py`.
"""

from __future__ import annotations

import numpy as np

from bahe_tasks.core.metrics import METRICS, auc, calibration, evaluate, row_losses
from bahe_tasks.core.resampled_metrics import ECE, ECE_UPPER, MetricRows
from bahe_tasks.core.resampling import Interval, Ranking, percentile_interval, sum_by_user, user_resamples

_RATE_FLOOR = 1e-7


def metric_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    users: np.ndarray,
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return every metric of `METRICS` with its interval over resamples of users, the same for all.

    Resamples in which a metric does not exist are left out of its interval; NaN ends when none is left, and of one user.
    """
    one_group = np.zeros(len(labels), np.int64)
    return average_intervals(labels, scores, users, one_group, samples=samples, seed=seed, level=level)


def average_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    users: np.ndarray,
    groups: np.ndarray,
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return the mean over groups (days) of every metric, with its interval over resamples of users.

    A user is drawn with all their rows, whatever the group. The groups are given, not drawn: the interval says what
    other users would have given on these days, not what other days would. A mean is over the groups where the metric
    is finite, in each resample anew. With one group it is `metric_intervals`.
    """
    distinct, user = np.unique(users, return_inverse=True)
    masks = [groups == group for group in np.unique(groups)]
    parts = [MetricRows.of(labels[rows], scores[rows], user[rows]) for rows in masks]
    estimates = [evaluate(labels[rows], scores[rows], user[rows]) for rows in masks]
    resampled: dict[str, list[np.ndarray]] = {name: [] for name in (*METRICS, ECE_UPPER)}
    for counts in user_resamples(len(distinct), samples=samples, seed=seed, num_rows=len(labels)):
        values = [part.resample(counts) for part in parts]
        for name, chunks in resampled.items():
            chunks.append(_mean_of_finite([of_part[name] for of_part in values]))
    drawn = {name: np.concatenate(chunks) if chunks else np.empty(0) for name, chunks in resampled.items()}
    found = {}
    for name in METRICS:
        estimate = float(_mean_of_finite([np.array([of_part[name]]) for of_part in estimates])[0])
        upper = drawn[ECE_UPPER] if name == ECE else None
        found[name] = percentile_interval(estimate, drawn[name], level, upper=upper)
    return found


def _mean_of_finite(values: list[np.ndarray]) -> np.ndarray:
    """Return the mean over groups where finite, NaN where none is; of one group the values as they are."""
    if not values:
        return np.array([np.nan])
    if len(values) == 1:
        return values[0]
    stacked = np.stack(values)
    finite = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(finite, stacked, 0).sum(0) / finite.sum(0)


def paired_auc_difference_interval(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    users: np.ndarray,
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Return AUC(a) - AUC(b) on the same rows, with the percentile interval over resamples of users.

    Resamples with one class are left out; NaN ends when none is left, and of one user.
    """
    distinct, user = np.unique(users, return_inverse=True)
    a, b = Ranking.of(labels, scores_a, user), Ranking.of(labels, scores_b, user)
    resamples = user_resamples(len(distinct), samples=samples, seed=seed, num_rows=len(labels))
    differences = [a.aucs(counts) - b.aucs(counts) for counts in resamples]
    return percentile_interval(auc(labels, scores_a) - auc(labels, scores_b), _joined(differences), level)


def calibration_interval(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, *, samples: int = 1000, seed: int, level: float = 0.99
) -> Interval:
    """Return predicted / observed clicks with the percentile interval over resamples of users.

    A resample without a click counts as infinity, so the upper end is infinite where clicks are too few to tell.
    """
    distinct, user = np.unique(users, return_inverse=True)
    predicted, clicks = sum_by_user(user, scores), sum_by_user(user, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [
            (counts @ predicted) / (counts @ clicks)
            for counts in user_resamples(len(distinct), samples=samples, seed=seed, num_rows=len(distinct))
        ]
    return percentile_interval(calibration(labels, scores), _joined(ratios), level)


def logloss_excess_interval(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, *, samples: int = 1000, seed: int, level: float = 0.95
) -> Interval:
    """Return logloss(model) - logloss(base rate) with the percentile interval over resamples of users, nats.

    The base rate is that of the same rows, which favours it: a model without any signal is above zero.
    """
    if len(labels) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    distinct, user = np.unique(users, return_inverse=True)
    rows, clicks = np.bincount(user).astype(np.float64), sum_by_user(user, labels)
    losses = sum_by_user(user, row_losses(labels, scores))

    def excess(counts: np.ndarray) -> np.ndarray:
        total = counts @ rows
        rate = np.clip(counts @ clicks / total, _RATE_FLOOR, 1 - _RATE_FLOOR)
        return counts @ losses / total + rate * np.log(rate) + (1 - rate) * np.log1p(-rate)

    resamples = user_resamples(len(distinct), samples=samples, seed=seed, num_rows=len(distinct))
    estimate = float(excess(np.ones((1, len(distinct))))[0])
    return percentile_interval(estimate, _joined([excess(counts) for counts in resamples]), level)


def _joined(chunks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(chunks) if chunks else np.empty(0)
