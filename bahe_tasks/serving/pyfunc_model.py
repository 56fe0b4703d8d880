"""The MLflow pyfunc of a model version: click probabilities from cached embeddings, or from histories.

Owns no logic: it turns a DataFrame into the arrays of `core.score`. So
`mlflow.pyfunc.load_model("models:/bahe_ctr@champion").predict(frame)` gives what `bahe score` gives.

Unusual: MLflow stores this very file beside the weights and runs it when the model is loaded ("model from code"), so
the last line does something at import, and bahe_tasks must be installed where the model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class ClickProbability(PythonModel):
    """Predicts `click_probability` of P pairs on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights and the spec that lie side by side in the model's artifacts."""
        from bahe_tasks.core.model_files import load_model

        self._model, self._spec = load_model(Path(context.artifacts["model_spec"]).parent, device="cpu")
        self._deep_pass = Lock()  # MLflow's server predicts on several threads, and the deep layers know of one batch

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one column, click_probability (P,), for one row a pair, with the index of the input.

        Columns: user_embedding (N·(E + X) numbers, text features in sorted order), item_embedding (E numbers); optional:
        user_id, item_id, each `cat_*` (text) and `num_*` (number) the model has, and sums (a list of numbers in the order
        of bahe_tasks.running_sums.IMPRESSION_SUMS). A value left out is absent.

        A model whose user side depends on the item (head din, item beside) reads instead, all optional:
        title_embedding (H numbers, the behavior embedding of the title as it is stored) and for each text feature behaviors_FEATURE
        (S lists of H numbers, oldest first, at most the S it was trained with) and ages_s_FEATURE (S numbers, seconds).
        """
        score = self._score_cached if self._spec.model.user_is_cacheable else self._score_histories
        cat = {name: _texts(model_input, f"cat_{name}") for name in self._spec.cat_columns}
        num = {name: _numbers(model_input, f"num_{name}") for name in self._spec.num_columns}
        return pd.DataFrame({"click_probability": score(model_input, cat, num)}, index=model_input.index)

    def _score_cached(self, frame: pd.DataFrame, cat: dict[str, np.ndarray], num: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        from bahe_tasks.core.score import score_pairs

        return score_pairs(
            self._model,
            _matrix(frame["user_embedding"]),
            _matrix(frame["item_embedding"]),
            user_ids=_texts(frame, "user_id"),
            item_ids=_texts(frame, "item_id"),
            cat=cat,
            num=num,
            sums=_sums(frame),
            device=torch.device("cpu"),
        )

    def _score_histories(
        self, frame: pd.DataFrame, cat: dict[str, np.ndarray], num: dict[str, np.ndarray]
    ) -> np.ndarray:
        import torch

        from bahe_tasks.core.score import score
        from bahe_tasks.core.training_rows import Histories, ImpressionRows

        vectors: list[Any] = []  # every vector of the frame in turn: rows of one embedding matrix
        title_rows = np.full(len(frame), -1, np.int64)
        for p, title in enumerate(_lists(frame, "title_embedding")):
            if len(title):
                title_rows[p] = len(vectors)
                vectors.append(title)
        histories = {}
        for feature in self._spec.features:
            behaviors = _lists(frame, f"behaviors_{feature}")
            ages_s = _lists(frame, f"ages_s_{feature}") if self._spec.model.recency_buckets else behaviors
            lengths = np.array([len(sequence) for sequence in behaviors], np.int64)
            if [len(ages) for ages in ages_s] != lengths.tolist():
                raise ValueError(f"ages_s_{feature} must hold one age for each behavior of behaviors_{feature}")
            ends = np.cumsum(lengths)
            flat_ages = np.zeros(lengths.sum())
            if self._spec.model.recency_buckets:
                flat_ages[:] = [age for ages in ages_s for age in ages]
            histories[feature] = Histories(
                behavior_rows=len(vectors) + np.arange(lengths.sum()),
                occurred_at=np.round(-flat_ages * 1_000_000).astype(np.int64),  # the present is 0
                starts=ends - lengths,
                ends=ends,
            )
            vectors += [vector for sequence in behaviors for vector in sequence]
        rows = ImpressionRows(
            impression_ids=np.arange(len(frame)).astype(object),
            user_ids=_texts(frame, "user_id"),
            item_ids=_texts(frame, "item_id"),
            shown_at=np.zeros(len(frame), np.int64),
            as_of=np.zeros(len(frame), np.int64),
            labels=np.zeros(len(frame), np.float32),
            title_rows=title_rows,
            histories=histories,
            cat=cat,
            num=num,
            sums=_sums(frame),
        )
        width = self._model.deep.width
        embeddings = np.array(vectors, np.float32).reshape(len(vectors), width)
        with self._deep_pass:
            return score(self._model, rows, embeddings, batch_size=256, device=torch.device("cpu"))


def _matrix(column: pd.Series) -> np.ndarray:
    """Return (P, width) float32, all rows of one width."""
    return (
        np.stack([np.asarray(row, dtype=np.float32) for row in column]) if len(column) else np.zeros((0, 0), np.float32)
    )


def _lists(frame: pd.DataFrame, name: str) -> list[Any]:
    """Return a list a row, empty where the value or the whole column is absent."""
    return (
        [row if isinstance(row, list | tuple | np.ndarray) else [] for row in frame[name]]
        if name in frame
        else [[]] * len(frame)
    )


def _sums(frame: pd.DataFrame) -> np.ndarray | None:
    """Return (P, len(IMPRESSION_SUMS)) float64, NaN where a value or a list is absent; None without the column."""
    if "sums" not in frame:
        return None
    from bahe_tasks.running_sums import IMPRESSION_SUMS

    sums = np.full((len(frame), len(IMPRESSION_SUMS)), np.nan)
    for p, row in enumerate(_lists(frame, "sums")):
        if len(row) not in (0, len(IMPRESSION_SUMS)):
            raise ValueError(f"sums must hold {len(IMPRESSION_SUMS)} numbers a row, not {len(row)}")
        if len(row):
            sums[p] = np.asarray(row, dtype=np.float64)  # None becomes NaN
    return sums


def _texts(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return (P,) object, None where the value is absent or empty, or the whole column absent."""
    if name not in frame:
        return np.full(len(frame), None, dtype=object)
    return np.array([None if pd.isna(value) or value == "" else str(value) for value in frame[name]], dtype=object)


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return (P,) float64, NaN where the value or the whole column is absent."""
    return frame[name].to_numpy(dtype=np.float64) if name in frame else np.full(len(frame), np.nan)


set_model(ClickProbability())
