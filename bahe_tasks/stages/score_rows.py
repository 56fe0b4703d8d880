"""Click probabilities of impressions under the configured batch and device: one way for every stage that scores rows."""

from __future__ import annotations

import numpy as np

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.score import score
from bahe_tasks.core.training_rows import ImpressionRows


def score_rows(model: BaheCtrModel, rows: ImpressionRows, vectors: np.ndarray, config: Config) -> np.ndarray:
    """Return the click probability of each row, (R,) float64; `vectors` are the embeddings its rows point to, (M, H)."""
    batch_size, device = config.training.scored_at_once, pick_device(config.encoder.device)
    return score(model, rows, vectors, batch_size=batch_size, device=device)
