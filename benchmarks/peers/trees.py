"""Gradient-boosted trees (LightGBM) over point-in-time numbers, re-fitted from scratch over all earlier rows.

Re-fitted once the log has grown by `growth`: every day at first, every few days later, so that the cost stays within
1 / growth times that of one fit over everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm
import numpy as np

_FEWEST_ROWS = 100


@dataclass(frozen=True)
class TreesSettings:
    """What was tuned."""

    rounds: int = 200
    learning_rate: float = 0.05
    leaves: int = 31
    rows_per_leaf: int = 50
    l2: float = 5.0
    row_share: float = 0.8
    column_share: float = 0.5
    growth: float = 0.1


class TreesPeer:
    """Trees over `numbers` (R, K), NaN = absent."""

    def __init__(self, numbers: np.ndarray, labels: np.ndarray, settings: TreesSettings, *, seed: int) -> None:
        self._numbers, self._labels, self._settings, self._seed = numbers, labels, settings, seed
        self._booster: lightgbm.Booster | None = None
        self._seen, self._fitted_rows = np.empty(0, np.int64), 0

    def score(self, rows: slice) -> np.ndarray:
        if self._booster is None:
            return np.full(rows.stop - rows.start, 0.5)
        return np.asarray(self._booster.predict(self._numbers[rows], num_threads=1))

    def learn(self, rows: np.ndarray) -> None:
        settings = self._settings
        self._seen = np.concatenate([self._seen, rows])
        if len(self._seen) < max(_FEWEST_ROWS, self._fitted_rows * (1 + settings.growth)):
            return
        parameters = {
            "objective": "binary",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": settings.rows_per_leaf,
            "lambda_l2": settings.l2,
            "bagging_fraction": settings.row_share,
            "bagging_freq": 1,
            "feature_fraction": settings.column_share,
            "seed": self._seed,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        earlier = lightgbm.Dataset(self._numbers[self._seen], self._labels[self._seen])
        self._booster = lightgbm.train(parameters, earlier, num_boost_round=settings.rounds)
        self._fitted_rows = len(self._seen)
