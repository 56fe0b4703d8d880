"""A progressive replay in memory: each day is scored by the model of the days before it, then trained on.

The protocol of the pipeline's fine_tune without gate and held-out rows, for benchmarks. What is trained on after a day
and what a first model is can be chosen (`kit.update_policies`, `kit.text_readers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from time import process_time
from typing import NamedTuple

import numpy as np

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.optimizers import OptimizerState
from bahe_tasks.core.score import score
from bahe_tasks.core.train import train
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.stages.model_of_day import model_to_train

ModelOfDay = Callable[..., tuple[BaheCtrModel, ModelSpec]]
"""Takes the arguments of `stages.model_of_day.model_to_train`."""


class Trained(NamedTuple):
    """A model and what the next day's training goes on from."""

    model: BaheCtrModel
    optimizer_state: OptimizerState


@dataclass(frozen=True)
class Update:
    """One fine-tune: after which day, on what, at what cost."""

    day: date
    impression_ids: np.ndarray  # (R,) object
    cpu_s: float


@dataclass(frozen=True)
class Predictions:
    """What was predicted before it was trained on, and what it cost."""

    labels: np.ndarray  # (R,)
    scores: np.ndarray  # (R,) click probabilities
    users: np.ndarray  # (R,) object
    days: np.ndarray  # (R,) datetime64[D]
    updates: tuple[Update, ...]
    score_cpu_s: float

    @property
    def train_cpu_s(self) -> float:
        """Processor seconds of all updates."""
        return sum(update.cpu_s for update in self.updates)


def replay(
    days: Sequence[tuple[date, ImpressionRows]],
    embeddings: np.ndarray,
    config: Config,
    *,
    texts: Sequence[str],
    seed: int,
    start: Trained | None = None,
    rows_after: Callable[[date], ImpressionRows | None] | None = None,
    model_of_day: ModelOfDay = model_to_train,
) -> tuple[Predictions, Trained]:
    """Replay the days; returns the predictions and the last model. `embeddings` (M, H) are of the `texts`.

    Without `start`, the model of the days before (it is trained on, give a copy), the first day is trained on alone.
    `rows_after` gives what is trained on once a day is over, None for nothing; unless given, that day.
    Raises `ValueError` where no day is scored.
    """
    device = pick_device(config.encoder.device)
    model, state = start if start is not None else (None, {})
    spec = model.spec if model is not None else None
    parts: list[tuple[date, ImpressionRows, np.ndarray]] = []
    updates: list[Update] = []
    score_cpu_s = 0.0
    for number, (day, rows) in enumerate(days):
        if model is not None:
            began = process_time()
            batch_size = config.training.scored_at_once
            parts.append((day, rows, score(model, rows, embeddings, batch_size=batch_size, device=device)))
            score_cpu_s += process_time() - began
        read = rows_after(day) if rows_after else rows
        if read is None:
            continue
        began = process_time()
        warm = config.training.start_from == "parent"
        parent = (model, spec) if warm and model is not None and spec is not None else None
        model, spec = model_of_day(
            read,
            embeddings,
            config,
            parent,
            texts_at=lambda numbers: [texts[n] for n in numbers],
            encoder_version="replay",
            seed=seed + number,
        )
        curve = train(
            model,
            read,
            embeddings,
            training=config.training,
            seed=seed + number,
            device=device,
            optimizer_state=state if parent else None,
        )
        state, spec = curve.optimizer_state, spec.trained(steps=len(curve.losses))
        model.spec = spec
        updates.append(Update(day, read.impression_ids, process_time() - began))
    if model is None or not parts:
        raise ValueError("a replay needs two days with impressions or more, or one and a model to start from")
    return Predictions(
        labels=np.concatenate([rows.labels for _, rows, _ in parts]).astype(np.float64),
        scores=np.concatenate([scores for _, _, scores in parts]),
        users=np.concatenate([rows.user_ids for _, rows, _ in parts]),
        days=np.concatenate([np.full(len(rows), np.datetime64(day)) for day, rows, _ in parts]),
        updates=tuple(updates),
        score_cpu_s=score_cpu_s,
    ), Trained(model, state)
