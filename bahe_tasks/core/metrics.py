"""Metrics of click probabilities, by name in `METRICS`; docs/metrics.md says what each one tells. numpy alone.

Labels y are 0 or 1, scores p are click probabilities, users are ids or codes, all (R,). A metric that does not exist
for the given rows is NaN, never a guess. Their intervals are in `intervals.py` and `delong.py`.
"""

from __future__ import annotations

import numpy as np

METRICS = (
    "auc",
    "gauc",
    "mean_user_auc",
    "logloss",
    "normalised_entropy",
    "calibration",
    "expected_calibration_error",
)

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017."""

_PROBABILITY_FLOOR = 1e-7


def evaluate(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """Return every metric of `METRICS` by name."""
    return {
        "auc": auc(labels, scores),
        "gauc": gauc(labels, scores, users),
        "mean_user_auc": mean_user_auc(labels, scores, users),
        "logloss": logloss(labels, scores),
        "normalised_entropy": normalised_entropy(labels, scores),
        "calibration": calibration(labels, scores),
        "expected_calibration_error": expected_calibration_error(labels, scores),
    }


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a click scores above a non-click, ties counting one half.

    Range 0 to 1, 0.5 is chance; NaN when there is only one class. Source: Mann-Whitney U over mean ranks.
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks_of_positives = mean_ranks(scores)[labels > 0].sum()
    return float((ranks_of_positives - positives * (positives + 1) / 2) / (positives * negatives))


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Return the AUC within each user, averaged with the user's number of impressions as weight.

    Users with one class have no AUC and are left out, weight and all; NaN when none is left. Range 0 to 1.
    Source: Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018, section 6.3.
    """
    of_user, impressions = user_aucs(labels, scores, users)
    both = ~np.isnan(of_user)
    if not both.any():
        return float("nan")
    return float((of_user[both] * impressions[both]).sum() / impressions[both].sum())


def mean_user_auc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Return the AUC within each user, averaged with one vote per user; users with one class have none.

    Unlike GAUC, users with many impressions count no more than others. Range 0 to 1; NaN when no user has an AUC.
    Source: Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, section 6.2.
    """
    of_user, _ = user_aucs(labels, scores, users)
    both = ~np.isnan(of_user)
    return float(of_user[both].mean()) if both.any() else float("nan")


def logloss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean binary cross-entropy in nats, probabilities clipped to [1e-7, 1 - 1e-7]; NaN without rows."""
    return float(row_losses(labels, scores).mean()) if len(labels) else float("nan")


def normalised_entropy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return logloss / entropy of the base rate of the same rows: below 1 is better than predicting that rate.

    Range 0 to infinity. NaN without rows or with one class, whose base rate has no entropy.
    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, section 2, where the
    base rate is that of the training rows; a constant taken from the judged rows themselves is harder to beat.
    """
    rate = float(np.mean(labels, dtype=np.float64)) if len(labels) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    return logloss(labels, scores) / float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def calibration(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return predicted / observed clicks, sum p / sum y; 1 is right, infinity without a click, NaN without rows."""
    predicted, observed = float(np.sum(scores, dtype=np.float64)), float(np.sum(labels, dtype=np.float64))
    if observed > 0:
        return predicted / observed
    return float("inf") if predicted > 0 else float("nan")


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, *, bins: int = CALIBRATION_BINS) -> float:
    """Return sum over bins of |sum p - sum y| / R: how far predicted and observed rate differ where p is alike.

    Bins are of equal mass (`score_bins`): CTR scores crowd near zero, where bins of equal width would hold all rows.
    Range 0 to 1; NaN without rows. Biased upwards: with n rows a bin, a perfect model still has a gap of about
    sqrt(2 p (1 - p) / (pi n)) in each. Source: Naeini et al., AAAI 2015; equal mass: Nixon et al., CVPR workshops 2019.
    """
    if len(labels) == 0:
        return float("nan")
    gaps = np.bincount(score_bins(scores, bins), np.asarray(scores, np.float64) - labels)
    return float(np.abs(gaps).sum() / len(labels))


def score_bins(scores: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each row, 0 to bins - 1, by rank; equal scores share the bin of their mean rank."""
    return ((mean_ranks(scores) - 0.5) * bins / max(len(scores), 1)).astype(np.int64)


def row_losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the binary cross-entropy of each row in nats, probabilities clipped to [1e-7, 1 - 1e-7]."""
    p = np.clip(np.asarray(scores, np.float64), _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    return -(labels * np.log(p) + (1 - labels) * np.log1p(-p))


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of each score from 1, equal scores sharing the mean of theirs (midranks)."""
    _, tie, count = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[tie]


def user_aucs(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's AUC (NaN where there is one class) and number of impressions, users in sorted order."""
    if len(labels) == 0:
        return np.empty(0), np.empty(0)
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
    pairs = positives * (impressions - positives)
    won = np.bincount(user, rank * y) - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore"):
        return won / pairs, impressions
