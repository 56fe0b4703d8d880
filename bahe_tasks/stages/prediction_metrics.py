"""Metrics of a table of progressive predictions: from Arrow columns to the arrays of `core.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.core.metrics import evaluate


@dataclass(frozen=True)
class JudgedRows:
    """Labels, click probabilities and user codes of R rows, each (R,); codes stand in the order of the user ids."""

    labels: np.ndarray
    scores: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: np.ndarray) -> JudgedRows:
        """Return the rows of the mask; a user keeps its code."""
        return JudgedRows(self.labels[mask], self.scores[mask], self.users[mask])

    def metrics(self) -> dict[str, float]:
        """Return every metric by name, NaN where it does not exist."""
        return evaluate(self.labels, self.scores, self.users)


def judged_rows(predictions: pa.Table) -> JudgedRows:
    """Return the rows of a table of predictions, in its order."""
    return JudgedRows(
        labels=np.asarray(predictions["label"], dtype=np.float64),
        scores=np.asarray(predictions["click_probability"], dtype=np.float64),
        users=_codes(predictions["user_id"]),
    )


def metrics_of(predictions: pa.Table) -> dict[str, Any]:
    """Return `rows` and every metric of a table of predictions, NaN where it does not exist; nothing without rows."""
    if not predictions.num_rows:
        return {}
    return {"rows": predictions.num_rows, **judged_rows(predictions).metrics()}


def _codes(ids: pa.ChunkedArray) -> np.ndarray:
    """Return the place of each id among the sorted distinct ids, so that no result depends on the order of rows."""
    encoded = ids.combine_chunks().dictionary_encode()
    place = np.empty(len(encoded.dictionary), np.int64)
    place[np.asarray(pc.array_sort_indices(encoded.dictionary))] = np.arange(len(place))
    return place[np.asarray(encoded.indices)]
