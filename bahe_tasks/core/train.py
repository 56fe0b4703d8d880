"""The daily fine-tune: one loop over the training rows, in the order given, oldest first.

Unusual: hashed embeddings are trained by a sparse Adam that touches only the rows a batch holds. A dense AdamW would
read and shrink every row of every table at each step, also those of ids that were not there. A row is looked up a few
times a day where a dense weight moves at every step, so its step size is larger by `_HASHED_STEP`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.batches import ImpressionRows, collate, head_columns
from bahe_tasks.core.ctr_model import BaheCtrModel

_HASHED_STEP = 50.0
"""Step size of hashed rows over that of the head. Measured on MovieTweetings, 45 days from 2013-05-01, frozen deep layers:
pooled progressive AUC 0.690 at 1, 0.710 at 10, 0.725 at 30, 0.729 at 50, 0.732 at 100."""


class TrainingDivergedError(ArithmeticError):
    """A loss that is not a number."""


@dataclass(frozen=True)
class TrainingCurve:
    """What happened at each step, in order."""

    losses: tuple[float, ...]  # mean binary cross-entropy of the batch, nats
    gradient_norms: tuple[float, ...]  # before clipping, hashed embeddings left out
    rows: int  # rows of one epoch


def train(
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    *,
    training: TrainingConfig,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingCurve:
    """Train the deep layers and everything above them in place; the model ends in evaluation mode.

    `embeddings` is (M, H) float16. The same model, rows, settings, seed and thread count give equal bits on the same
    machine. Zero rows train nothing: the curve is empty. `progress` is called with rows done and their total over all
    epochs. Raises `TrainingDivergedError`.
    """
    columns = head_columns(rows, model.spec)
    optimizers = _optimizers(model, training)
    dense = [parameter for group in optimizers[0].param_groups for parameter in group["params"]]
    losses: list[float] = []
    norms: list[float] = []
    with _reproducible(seed, num_threads=training.num_threads, device=device):
        model.to(device).train()
        for epoch in range(training.epochs):
            for start in range(0, len(rows), training.batch_size):
                index = np.arange(start, min(start + training.batch_size, len(rows)))
                batch = collate(rows, embeddings, index, columns=columns, features=model.features, device=device)
                loss = binary_cross_entropy_with_logits(model(batch), batch.labels)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(dense, training.max_gradient_norm)
                if not torch.isfinite(loss) or not torch.isfinite(norm):
                    raise TrainingDivergedError(
                        f"loss {loss.item()} and gradient norm {norm.item()} at step {len(losses)} of epoch {epoch}: "
                        "lower training.deep_learning_rate or training.head_learning_rate"
                    )
                for optimizer in optimizers:
                    optimizer.step()
                losses.append(loss.item())
                norms.append(norm.item())
                if progress is not None:
                    progress(epoch * len(rows) + int(index[-1]) + 1, training.epochs * len(rows))
        model.eval()
    return TrainingCurve(tuple(losses), tuple(norms), len(rows))


def _optimizers(model: BaheCtrModel, training: TrainingConfig) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW for dense weights in two groups, deep layers and the rest; a sparse Adam, without decay, for hashed rows."""
    tables = list(model.head.tables.parameters())
    deep = [p for p in model.deep.parameters() if p.requires_grad]
    apart = {id(p) for p in (*tables, *model.deep.parameters())}
    rest = [p for p in model.parameters() if id(p) not in apart]
    dense = torch.optim.AdamW(
        [{"params": deep, "lr": training.deep_learning_rate}, {"params": rest, "lr": training.head_learning_rate}],
        weight_decay=training.weight_decay,
    )
    return (
        (dense, torch.optim.SparseAdam(tables, lr=_HASHED_STEP * training.head_learning_rate)) if tables else (dense,)
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
