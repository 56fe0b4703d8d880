"""The daily fine-tune: one loop over the training rows, in an order drawn anew for each epoch (paper, step 4 of the day).

Unusual: rows that share a user state are trained on together, so that their user passes through the deep layers once.
With histories as of each impression hardly any do; with histories as of the day's start a user's impressions of a day
stand together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.compiled_layers import compiled_layers
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.metrics import logloss
from bahe_tasks.core.one_ahead import one_ahead
from bahe_tasks.core.optimizers import Optimizers, OptimizerState
from bahe_tasks.core.ranks import ALONE, Ranks
from bahe_tasks.core.score import score
from bahe_tasks.core.training_rows import ImpressionRows, passed_together, row_columns, shuffled
from bahe_tasks.core.training_state import Position, resume_state, save_state, take_state, trained_state
from bahe_tasks.core.training_step import TrainingStep
from bahe_tasks.core.window_level import WindowLevel
from bahe_tasks.wrong_use import WrongUseError


class NothingToRecomputeError(WrongUseError):
    """Gradient checkpointing of deep layers that do not offer it."""


@dataclass(frozen=True)
class TrainingCurve:
    """What happened, in order, and what the next day's training goes on from (`Optimizers.end`)."""

    losses: tuple[float, ...]  # of each step, nats; with several labels their weighted sum
    gradient_norms: tuple[float, ...]  # of each step, before clipping, hashed embeddings left out
    stop_losses: tuple[float, ...]  # logloss of the click on the early-stop rows after each epoch, nats
    steps_kept: int  # steps behind the weights: all, or with early stop those up to the best epoch
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
    ranks: Ranks = ALONE,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingCurve:
    """Train the deep layers and everything above them in place; the model ends in evaluation mode.

    `embeddings` is (M, H) float16. `optimizer_state` is the parent's, to go on with. `state_file` is where the state is
    saved every `training.checkpoint_steps` steps, and read from if it is there; the caller removes it.

    Each of several `ranks` calls this with the same arguments and ends with the same model.

    On a CPU the same model, rows, settings, seed and thread count give equal bits on the same machine, resumed or not.
    Zero rows train nothing: the curve is empty. With early stop, weights and state are those of the best epoch.
    `progress` is called with rows done and their total over all epochs. Raises `TrainingDivergedError`,
    `UnknownLabelError`, and `LabelValueError` for a label that is neither 0 nor 1.
    """
    columns = row_columns(rows, model.spec)
    decides = early_stop_users(rows.user_ids, share=training.early_stop_share, seed=seed)
    states, stop_on = passed_together(rows, model.features, columns), np.flatnonzero(decides)
    num_rows = len(rows) - len(stop_on)
    training = replace(training, batch_size=training.batch_size_of(num_rows))
    model.to(device)
    optimizers = Optimizers(model, training)
    optimizers.load(optimizer_state or {})
    step = TrainingStep(model, optimizers, rows, embeddings, columns, training, seed=seed, ranks=ranks, device=device)
    with (
        _reproducible(num_threads=training.num_threads, device=device),
        recomputing(model, training.gradient_checkpointing),
        compiled_layers(model, enabled=training.compile_layers),
    ):
        at, best = resume_state(state_file, model, optimizers, device) if state_file else (Position(), {})
        while at.epoch < training.epochs and not _stopped(at.stop_losses, training.patience_epochs):
            model.train()
            model.deep.train(model.spec.model.deep_tuning != "frozen")  # what is frozen drops nothing out
            in_order = shuffled(states, seed=(seed, at.epoch))
            trained_on = in_order[~decides[in_order]]
            starts = range(at.next_row, len(trained_on), training.batch_size)
            batches = (trained_on[start : start + training.batch_size] for start in starts)
            for prepared in one_ahead(step.prepare_ahead, batches):
                loss, norm, at.level = step.take(prepared, number=len(at.losses), level=WindowLevel(*at.level))
                at.losses.append(loss)
                at.gradient_norms.append(norm)
                at.next_row += len(prepared.index)
                if (
                    state_file
                    and ranks.rank == 0
                    and training.checkpoint_steps
                    and len(at.losses) % training.checkpoint_steps == 0
                ):
                    save_state(state_file, at, model, optimizers, best, device)
                if progress is not None:
                    progress(at.epoch * num_rows + at.next_row, training.epochs * num_rows)
            at.epoch, at.next_row = at.epoch + 1, 0
            if training.level_learned < 1:
                by, at.level = WindowLevel(*at.level).hand_over(training.level_learned)
                optimizers.shift(model.head.outputs.click_bias, by)
            if len(stop_on):
                batch_size = training.scored_at_once
                with optimizers.averaged():
                    scores = score(
                        model, rows, embeddings, index=stop_on, columns=columns, batch_size=batch_size, device=device
                    )
                at.stop_losses.append(ranks.shared(logloss(rows.labels[stop_on], scores), device))
                if at.stop_losses.index(min(at.stop_losses)) == len(at.stop_losses) - 1:
                    best, at.best_steps = trained_state(model, optimizers), len(at.losses)
        if best:
            take_state(model, optimizers, best)
    state = optimizers.end(with_deep_layers=training.keep_optimizer_state)
    model.eval()
    return TrainingCurve(
        losses=tuple(at.losses),
        gradient_norms=tuple(at.gradient_norms),
        stop_losses=tuple(at.stop_losses),
        steps_kept=at.best_steps if best else len(at.losses),
        rows=num_rows,
        optimizer_state=state,
    )


def early_stop_users(user_ids: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Return which rows decide when to stop, (R,) bool: hash(user_id, seed) < share. None where that were all."""
    of_user = {
        user: int.from_bytes(hashlib.sha256(f"{seed}\0{user}".encode()).digest()[:8], "big") / 2**64 < share
        for user in set(user_ids)
    }
    decides = np.array([of_user[user] for user in user_ids], bool)
    return np.zeros(len(decides), bool) if decides.all() else decides


def _stopped(stop_losses: list[float], patience_epochs: int) -> bool:
    """Return whether the last `patience_epochs` epochs brought no better logloss."""
    return len(stop_losses) > patience_epochs and min(stop_losses[-patience_epochs:]) >= min(
        stop_losses[:-patience_epochs]
    )


@contextmanager
def recomputing(model: BaheCtrModel, enabled: bool) -> Iterator[None]:
    """Compute hidden states of the deep layers again in the backward pass instead of keeping them.

    The layers are switched one by one: the LLM's own method looks for a token embedding, which the deep half lacks. The last
    one needs to know its position again; the others do not, and a compiled layer could not be told.
    """
    layers = [module for module in model.deep.modules() if isinstance(module, GradientCheckpointingLayer)]
    if enabled and (not layers or model.spec.model.deep_tuning == "frozen"):
        raise NothingToRecomputeError(
            f"training.gradient_checkpointing is on, but the deep layers of {type(model.deep.llm).__name__} are frozen or "
            "cannot compute their hidden states again: set it to false"
        )
    last = set(model.deep.layers[-1].modules()) if enabled else set()
    for layer in layers if enabled else ():
        contexts: dict[str, Any] = {"context_fn": model.deep.contexts_of_checkpoint} if layer in last else {}
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, **contexts)  # type: ignore[assignment]
        layer.gradient_checkpointing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False


@contextmanager
def _reproducible(*, num_threads: int, device: torch.device) -> Iterator[None]:
    """Ask for deterministic kernels and set the thread count; put them and the random generator back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # A CUDA matrix product is only deterministic with an environment variable, which this package does not set.
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            if num_threads:
                torch.set_num_threads(num_threads)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
