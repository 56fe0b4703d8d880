"""Logistic regression (scikit-learn) over one-hot ids, cat columns and length classes of histories.

Re-fitted every day over all earlier rows, from the weights of the day before.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.peers.inputs import Inputs


class LinearPeer:
    """L2-regularised; `strength` is scikit-learn's C."""

    def __init__(self, inputs: Inputs, *, strength: float = 1.0, iterations: int = 30) -> None:
        num_rows = len(inputs.labels)
        starts = np.cumsum([0, *inputs.vocabulary.values()])
        columns = np.stack([codes + start for codes, start in zip(inputs.ids.values(), starts, strict=False)], 1)
        shape, ends = (num_rows, int(starts[-1])), np.arange(num_rows + 1) * columns.shape[1]
        self._one_hot = sparse.csr_matrix((np.ones(columns.size), columns.ravel(), ends), shape)
        self._labels = inputs.labels
        self._seen = np.empty(0, np.int64)
        self._model = LogisticRegression(C=strength, max_iter=iterations, warm_start=True)

    def score(self, rows: slice) -> np.ndarray:
        if not hasattr(self._model, "coef_"):
            return np.full(rows.stop - rows.start, 0.5)
        return self._model.predict_proba(self._one_hot[rows])[:, 1]

    def learn(self, rows: np.ndarray) -> None:
        self._seen = np.concatenate([self._seen, rows])
        labels = self._labels[self._seen]
        if len(np.unique(labels)) < 2:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._one_hot[self._seen], labels)
