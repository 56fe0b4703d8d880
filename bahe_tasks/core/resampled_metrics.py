"""Every metric of `METRICS` in resamples of users, from sums per user that are computed once. numpy alone.

Unusual: the expected calibration error is a sum of absolute values, which the percentile bootstrap gets wrong: its
resamples carry the estimate's upward bias twice, and the interval of a perfect model never holds the truth. Its ends
come from the errors of the bins instead. The error of the sum of |gap| is linear in the errors of the gaps where a gap
is clearly not zero, and the sum of their absolute values where it may be zero; clearly means three standard errors.
The upper end takes the linear error of all bins, so that the estimate stays below it. Source: Fang and Santos,
Inference on Directionally Differentiable Functions, Review of Economic Studies 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bahe_tasks.core.metrics import CALIBRATION_BINS, row_losses, score_bins, user_aucs
from bahe_tasks.core.resampling import Ranking, sum_by_user

ECE = "expected_calibration_error"
ECE_UPPER = "upper end of the expected calibration error"

_STANDARD_ERRORS_FROM_ZERO = 3


@dataclass(frozen=True)
class MetricRows:
    """What the metrics of a resample are made of. `users` (U,) are the codes of the users these rows have.

    sums (U, 8): rows, clicks, sum of scores, sum of losses, AUC times impressions, impressions of users with an AUC,
    AUC, users with an AUC. gaps (U, bins): sum p - sum y in each bin of the expected calibration error; gap (bins,):
    that of all users per row; near_zero (bins,): whether it may be zero.
    """

    users: np.ndarray
    ranking: Ranking
    sums: np.ndarray
    gaps: np.ndarray
    gap: np.ndarray
    near_zero: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, user: np.ndarray) -> MetricRows:
        """Sum and sort once; labels, scores and user codes are (R,), R > 0."""
        users, user = np.unique(user, return_inverse=True)
        of_user, impressions = user_aucs(labels, scores, user)
        both = ~np.isnan(of_user)
        of_user = np.where(both, of_user, 0)
        of_rows = [sum_by_user(user, values) for values in (labels, scores, row_losses(labels, scores))]
        gaps = np.zeros((len(users), CALIBRATION_BINS))
        np.add.at(gaps, (user, score_bins(scores, CALIBRATION_BINS)), np.asarray(scores, np.float64) - labels)
        gap = gaps.sum(0) / len(labels)
        # The standard error of a ratio of two sums over users: sum p - sum y, and the rows.
        error = np.sqrt(((gaps - np.outer(impressions, gap)) ** 2).sum(0)) / len(labels)
        return cls(
            users=users,
            ranking=Ranking.of(labels, scores, user),
            sums=np.stack([impressions, *of_rows, of_user * impressions, both * impressions, of_user, both], axis=1),
            gaps=gaps,
            gap=gap,
            near_zero=np.abs(gap) <= _STANDARD_ERRORS_FROM_ZERO * error,
        )

    def resample(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return each metric in K resamples, given how often every user of the pool was drawn, (K, pool).

        NaN where it does not exist. `ECE` and `ECE_UPPER` are the values whose percentiles are the lower and the upper
        end: the estimate less an error.
        """
        counts = counts[:, self.users]
        rows, clicks, predicted, losses, won, weight, user_auc, num_users = (counts @ self.sums).T
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = clicks / rows
            entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
            errors = counts @ self.gaps / rows[:, None] - self.gap
            linear = errors * np.where(self.gap < 0, -1, 1)
            estimate = np.abs(self.gap).sum()
            return {
                "auc": self.ranking.aucs(counts),
                "gauc": won / weight,
                "mean_user_auc": user_auc / num_users,
                "logloss": losses / rows,
                "normalised_entropy": losses / rows / entropy,
                "calibration": predicted / clicks,
                ECE: np.maximum(estimate - np.where(self.near_zero, np.abs(errors), linear).sum(1), 0),
                ECE_UPPER: np.minimum(estimate - linear.sum(1), 1),
            }
