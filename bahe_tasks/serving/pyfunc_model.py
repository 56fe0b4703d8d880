"""The MLflow pyfunc of a model version: click probabilities from cached user and item embeddings.

Owns no logic: it turns a DataFrame into the arrays of `core.score.score_pairs`. So
`mlflow.pyfunc.load_model("models:/bahe_ctr@champion").predict(frame)` gives what `bahe score` gives.

Unusual: MLflow stores this very file beside the weights and runs it when the model is loaded ("model from code"), so
the last line does something at import, and bahe_tasks must be installed where the model is loaded.
"""

from __future__ import annotations

from pathlib import Path
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

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one column, click_probability (P,), for one row a pair.

        Columns: user_embedding (N·H numbers, text features in sorted order), item_embedding (H numbers); optional:
        user_id, item_id, and each `cat_*` (text) and `num_*` (number) the model has. A value left out is absent.
        """
        import torch

        from bahe_tasks.core.score import score_pairs

        probabilities = score_pairs(
            self._model,
            _matrix(model_input["user_embedding"]),
            _matrix(model_input["item_embedding"]),
            user_ids=_texts(model_input, "user_id"),
            item_ids=_texts(model_input, "item_id"),
            cat={name: _texts(model_input, f"cat_{name}") for name in self._spec.cat_columns},
            num={name: _numbers(model_input, f"num_{name}") for name in self._spec.num_columns},
            device=torch.device("cpu"),
        )
        return pd.DataFrame({"click_probability": probabilities})


def _matrix(column: pd.Series) -> np.ndarray:
    """Return (P, width) float32, all rows of one width."""
    return (
        np.stack([np.asarray(row, dtype=np.float32) for row in column]) if len(column) else np.zeros((0, 0), np.float32)
    )


def _texts(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return (P,) object, None where the value or the whole column is absent."""
    if name not in frame:
        return np.full(len(frame), None, dtype=object)
    return np.array([None if pd.isna(value) else str(value) for value in frame[name]], dtype=object)


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return (P,) float64, NaN where the value or the whole column is absent."""
    return frame[name].to_numpy(dtype=np.float64) if name in frame else np.full(len(frame), np.nan)


set_model(ClickProbability())
