"""Metrics of click probabilities and their bootstrap intervals. numpy alone.

Labels y are 0 or 1, scores p are click probabilities, both (R,).

Unusual: intervals are resampled by user, not by row. The rows of one user are alike, so resampling rows would make the
interval too narrow. A resample is a weight per user, so no row is copied and no score is sorted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_PROBABILITY_FLOOR = 1e-7
_CELLS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile bootstrap interval; NaN where it is undefined."""

    estimate: float
    low: float
    high: float
    level: float


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a click scores above a non-click, ties counting one half.

    NaN when there is only one class. Source: Mann-Whitney U over mean ranks.
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, tie, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    return float((mean_rank[tie][labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Return the AUC within each user, averaged with the user's number of impressions as weight.

    Users with one class have no AUC and are left out, weight and all; NaN when none is left. Range 0 to 1.
    Source: Zhou et al., Deep Interest Network, KDD 2018, section 6.2 (impression-weighted).
    """
    if len(labels) == 0:
        return float("nan")
    _, user = np.unique(users, return_inverse=True)
    order = np.lexsort((scores, user))
    y, s, user = labels[order].astype(np.float64), scores[order], user[order]
    new_user = np.r_[True, user[1:] != user[:-1]]
    first_of_user = np.flatnonzero(new_user)
    tie = np.cumsum(new_user | np.r_[True, s[1:] != s[:-1]]) - 1
    count = np.bincount(tie)
    rank = (np.cumsum(count) - (count - 1) / 2)[tie] - first_of_user[user]
    impressions = np.bincount(user).astype(np.float64)
    positives = np.bincount(user, y)
    ranks_of_positives = np.bincount(user, rank * y)
    pairs = positives * (impressions - positives)
    both = pairs > 0
    if not both.any():
        return float("nan")
    of_user = (ranks_of_positives - positives * (positives + 1) / 2)[both] / pairs[both]
    return float((of_user * impressions[both]).sum() / impressions[both].sum())


def logloss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean binary cross-entropy in nats, probabilities clipped to [1e-7, 1 - 1e-7]; NaN without rows."""
    if len(labels) == 0:
        return float("nan")
    p = np.clip(np.asarray(scores, np.float64), _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    return float(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())


def calibration(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return predicted / observed clicks, sum p / sum y; 1 is right, infinity without a click, NaN without rows."""
    return _ratio(float(np.sum(scores, dtype=np.float64)), float(np.sum(labels, dtype=np.float64)))


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

    Resamples with one class are left out; NaN ends when none is left. Source: Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, section 13.3, with users as the units drawn.
    """
    ranking_a, ranking_b = _Ranking.of(labels, scores_a), _Ranking.of(labels, scores_b)
    differences = [
        _weighted_aucs(ranking_a, weights) - _weighted_aucs(ranking_b, weights)
        for weights in _user_resamples(users, samples=samples, seed=seed)
    ]
    return _percentile_interval(auc(labels, scores_a) - auc(labels, scores_b), differences, level)


def calibration_interval(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, *, samples: int = 1000, seed: int, level: float = 0.99
) -> Interval:
    """Return predicted / observed clicks with the percentile interval over resamples of users.

    A resample without a click counts as infinity, so the upper end is infinite where clicks are too few to tell.
    """
    ratios = []
    for weights in _user_resamples(users, samples=samples, seed=seed):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append((weights @ scores.astype(np.float64)) / (weights @ labels.astype(np.float64)))
    return _percentile_interval(calibration(labels, scores), ratios, level)


def logloss_excess_interval(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, *, samples: int = 1000, seed: int, level: float = 0.95
) -> Interval:
    """Return logloss(model) - logloss(base rate) with the percentile interval over resamples of users, nats.

    The base rate is that of the same rows, which favours it: a model without any signal is above zero.
    """
    labels = labels.astype(np.float64)
    p = np.clip(scores.astype(np.float64), _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    losses = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))

    def excess(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(-1)
        rate = np.clip(weights @ labels / total, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        return weights @ losses / total - entropy

    if len(labels) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    resampled = [excess(weights) for weights in _user_resamples(users, samples=samples, seed=seed)]
    return _percentile_interval(float(excess(np.ones(len(labels)))), resampled, level)


@dataclass(frozen=True)
class _Ranking:
    """Rows sorted by score: their order, where each run of equal scores starts, and the labels in that order."""

    order: np.ndarray
    tie_starts: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> _Ranking:
        order = np.argsort(scores, kind="stable")
        sorted_scores = scores[order]
        tie_starts = np.flatnonzero(np.r_[True, sorted_scores[1:] != sorted_scores[:-1]][: len(order)])
        return cls(order, tie_starts, labels[order].astype(np.float64))


def _weighted_aucs(ranking: _Ranking, weights: np.ndarray) -> np.ndarray:
    """AUC of each of (samples, R) row weights; NaN where the weighted rows have one class."""
    weights = weights[:, ranking.order]
    positive = np.add.reduceat(weights * ranking.labels, ranking.tie_starts, axis=1)
    negative = np.add.reduceat(weights * (1 - ranking.labels), ranking.tie_starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def _user_resamples(users: np.ndarray, *, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (some samples, R) float64 weights: how often each row's user was drawn. Nothing without rows."""
    if len(users) == 0:
        return
    distinct, user = np.unique(users, return_inverse=True)
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_PER_CHUNK // len(users))
    for start in range(0, samples, at_once):
        rows = min(at_once, samples - start)
        drawn = generator.integers(len(distinct), size=(rows, len(distinct)))
        cell = drawn + np.arange(rows)[:, None] * len(distinct)
        counts = np.bincount(cell.ravel(), minlength=rows * len(distinct)).reshape(rows, -1)
        yield counts[:, user].astype(np.float64)


def _percentile_interval(estimate: float, resampled: list[np.ndarray], level: float) -> Interval:
    values = np.concatenate(resampled) if resampled else np.empty(0)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(estimate, float("nan"), float("nan"), level)
    # A quantile that is one of the values: between a number and infinity there is nothing to interpolate.
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(estimate, float(low), float(high), level)


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return float("inf") if numerator > 0 else float("nan")
