"""DeLong's interval of an AUC and of the difference of two AUCs on the same rows. numpy alone.

Unusual: it takes rows as independent, which the rows of one user are not. Where users have several rows, the interval
is too narrow, and `intervals.paired_auc_difference_interval`, which draws users, is the one to trust. DeLong costs one
sort and no resamples, and gives a p-value. The interval is a normal one, cut to the range of what it estimates.

Sources: DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves, Biometrics 1988; by midranks in O(R log R): Sun and Xu, Fast Implementation of DeLong's
Algorithm, IEEE Signal Processing Letters 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bahe_tasks.core.metrics import auc, mean_ranks
from bahe_tasks.core.resampling import Interval


@dataclass(frozen=True)
class AucDifference:
    """AUC(a) - AUC(b), and the two-sided p-value of there being none; NaN where undefined."""

    interval: Interval
    p_value: float


def delong_auc_interval(labels: np.ndarray, scores: np.ndarray, *, level: float = 0.95) -> Interval:
    """Return the AUC with DeLong's interval, within 0 to 1.

    The ends are NaN with fewer than two rows of a class, which leave no variance to estimate. A perfect AUC has no
    variance at all: its interval is a point, and says nothing about how few the rows are.
    """
    estimate, error = auc(labels, scores), _standard_error(_placements(labels, scores))
    return _normal_interval(estimate, error, level, least=0)


def delong_difference(
    labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, *, level: float = 0.95
) -> AucDifference:
    """Return AUC(a) - AUC(b) on the same rows with DeLong's interval, within -1 to 1, and its p-value.

    NaN ends and p-value with fewer than two rows of a class. Scores that rank alike differ by 0 with p = 1.
    """
    estimate = auc(labels, scores_a) - auc(labels, scores_b)
    of_a, of_b = _placements(labels, scores_a), _placements(labels, scores_b)
    error = _standard_error((of_a[0] - of_b[0], of_a[1] - of_b[1]))
    return AucDifference(_normal_interval(estimate, error, level, least=-1), _p_value(estimate, error))


def _placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each click the share of non-clicks below it, for each non-click the share of clicks above it.

    Ties count one half. Both have the AUC as their mean. A rank among all rows less the rank among the own class is
    the number of the other class below.
    """
    click = labels > 0
    ranks = mean_ranks(scores)
    of_clicks, of_others = ranks[click] - mean_ranks(scores[click]), ranks[~click] - mean_ranks(scores[~click])
    return of_clicks / max((~click).sum(), 1), 1 - of_others / max(click.sum(), 1)


def _standard_error(placements: tuple[np.ndarray, np.ndarray]) -> float:
    """Return sqrt(var(clicks) / clicks + var(non-clicks) / non-clicks), sample variances; NaN below two of a class."""
    if min(map(len, placements)) < 2:
        return float("nan")
    return math.sqrt(sum(float(values.var(ddof=1)) / len(values) for values in placements))


def _normal_interval(estimate: float, error: float, level: float, *, least: float) -> Interval:
    if math.isnan(error):
        return Interval(estimate, error, error, level)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(estimate, max(estimate - reach, least), min(estimate + reach, 1.0), level)


def _p_value(estimate: float, error: float) -> float:
    if error == 0:
        return 1.0 if estimate == 0 else 0.0
    return math.erfc(abs(estimate) / error / math.sqrt(2))
