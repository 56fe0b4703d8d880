"""The daily fine-tune: one loop over the training rows, in the order given, oldest first (paper, step 4 of the day).

Unusual: rows that share a user state are trained on together, at the place of the first of them, so that their user
passes through the deep layers once. With histories as of each impression hardly any do, and the order is that of time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.batches import ImpressionRows, RowColumns, collate, row_columns
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.head_fields import block_key
from bahe_tasks.core.label_loss import label_loss
from bahe_tasks.core.metrics import logloss
from bahe_tasks.core.optimizers import Optimizers, OptimizerState
from bahe_tasks.core.schedule import learning_rate_share
from bahe_tasks.core.score import score
from bahe_tasks.core.training_state import Position, resume_state, save_state

_SCORED_AT_ONCE = 8  # batches of training that fit one batch of scoring, which keeps no gradients


class TrainingDivergedError(ArithmeticError):
    """A loss that is not a number."""


@dataclass(frozen=True)
class TrainingCurve:
    """What happened, in order, and the optimisers' state at the end, empty unless it is to be kept."""

    losses: tuple[float, ...]  # of each step, nats; with several labels their weighted sum
    gradient_norms: tuple[float, ...]  # of each step, before clipping, hashed embeddings left out
    stop_losses: tuple[float, ...]  # logloss of the click on the early-stop rows after each epoch, nats
    rows: int  # rows of one epoch
    optimizer_state: OptimizerState


def train(
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    *,
    training: TrainingConfig,
    seed: int,
    device: torch.device,
    optimizer_state: OptimizerState | None = None,
    state_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingCurve:
    """Train the deep layers and everything above them in place; the model ends in evaluation mode.

    `embeddings` is (M, H) float16. `optimizer_state` is the parent's, to go on with. `state_file` is where the state is
    saved every `training.checkpoint_steps` steps, and read from if it is there; the caller removes it.

    The same model, rows, settings, seed and thread count give equal bits on the same machine, resumed or not. Zero rows
    train nothing: the curve is empty. With early stop the weights are those of the best epoch. `progress` is called with
    rows done and their total over all epochs. Raises `TrainingDivergedError`.
    """
    columns = row_columns(rows, model.spec)
    trained_on, stop_on = early_stop_rows(rows.user_ids, share=training.early_stop_share, seed=seed)
    trained_on = trained_on[np.argsort(columns.user_states[trained_on], kind="stable")]
    model.to(device)
    optimizers = Optimizers(model, training)
    optimizers.load(optimizer_state or {})
    with _reproducible(seed, num_threads=training.num_threads, device=device):
        at, best = resume_state(state_file, model, optimizers, device) if state_file else (Position(), {})
        while at.epoch < training.epochs and not _stopped(at.stop_losses, training.patience_epochs):
            model.train()
            for start in range(at.next_row, len(trained_on), training.batch_size):
                index = trained_on[start : start + training.batch_size]
                loss, norm = _step(model, optimizers, rows, embeddings, index, columns, training, at, device)
                at.losses.append(loss)
                at.gradient_norms.append(norm)
                at.next_row = start + len(index)
                if state_file and training.checkpoint_steps and len(at.losses) % training.checkpoint_steps == 0:
                    save_state(state_file, at, model, optimizers, best, device)
                if progress is not None:
                    progress(at.epoch * len(trained_on) + at.next_row, training.epochs * len(trained_on))
            at.epoch, at.next_row = at.epoch + 1, 0
            if len(stop_on):
                at.stop_losses.append(_stop_loss(model, rows, embeddings, stop_on, training, device))
                if at.stop_losses[-1] == min(at.stop_losses):
                    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if best:
            model.load_state_dict(best)
    model.eval()
    return TrainingCurve(
        losses=tuple(at.losses),
        gradient_norms=tuple(at.gradient_norms),
        stop_losses=tuple(at.stop_losses),
        rows=len(trained_on),
        optimizer_state=optimizers.state() if training.keep_optimizer_state else {},
    )


def early_stop_rows(user_ids: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the rows trained on and of those that decide when to stop, by hash(user_id, seed) < share.

    None decide when that would leave nothing to train on.
    """
    everything = np.arange(len(user_ids))
    of_user = {
        user: int.from_bytes(hashlib.sha256(f"{seed}\0{user}".encode()).digest()[:8], "big") / 2**64 < share
        for user in set(user_ids)
    }
    decides = np.array([of_user[user] for user in user_ids], bool)
    if decides.all():
        return everything, everything[:0]
    return everything[~decides], everything[decides]


def _step(
    model: BaheCtrModel,
    optimizers: Optimizers,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    index: np.ndarray,
    columns: RowColumns,
    training: TrainingConfig,
    at: Position,
    device: torch.device,
) -> tuple[float, float]:
    """Take one step on the rows at `index`; return loss and gradient norm."""
    batch = collate(rows, embeddings, index, columns=columns, features=model.features, device=device)
    weights, log_variances = _label_weights(model, training, device)
    loss = label_loss(model(batch), batch.labels, weights=weights, log_variances=log_variances)
    optimizers.zero_grad()
    loss.backward()
    norm = optimizers.clip(training.max_gradient_norm)
    if not torch.isfinite(loss) or not torch.isfinite(norm):
        raise TrainingDivergedError(
            f"loss {loss.item()} and gradient norm {norm.item()} at step {len(at.losses)} of epoch {at.epoch}: "
            "lower training.deep_learning_rate or training.head_learning_rate"
        )
    step = model.spec.trained_steps + len(at.losses)
    optimizers.step(learning_rate_share(training, step=step, day=model.spec.trained_days))
    return loss.item(), norm.item()


def _label_weights(
    model: BaheCtrModel, training: TrainingConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weights (L,) of the labels in force and, where they are learned, their log-variances (L,)."""
    labels = model.spec.labels
    weights = torch.tensor([training.label_weights.get(label, 1.0) for label in labels], device=device)
    if training.label_weighting == "fixed" or len(labels) == 1:
        return weights, None
    return weights, torch.stack([model.log_variances[block_key(label)] for label in labels])


def _stop_loss(
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    stop_on: np.ndarray,
    training: TrainingConfig,
    device: torch.device,
) -> float:
    scores = score(
        model, rows, embeddings, index=stop_on, batch_size=training.batch_size * _SCORED_AT_ONCE, device=device
    )
    return logloss(rows.labels[stop_on], scores)


def _stopped(stop_losses: list[float], patience_epochs: int) -> bool:
    """Return whether the last `patience_epochs` epochs brought no better logloss."""
    return len(stop_losses) > patience_epochs and min(stop_losses[-patience_epochs:]) >= min(
        stop_losses[:-patience_epochs]
    )


@contextmanager
def _reproducible(seed: int, *, num_threads: int, device: torch.device) -> Iterator[None]:
    """Seed torch, ask for deterministic kernels and set the thread count; put everything back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        # A CUDA matrix product is only deterministic with an environment variable, which this package does not set.
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            if num_threads:
                torch.set_num_threads(num_threads)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
