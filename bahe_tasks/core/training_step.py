"""One step of the fine-tune: forward, backward and update on one batch, in as many passes as memory asks for.

Unusual: the random generator is seeded anew for each step, from seed, step and rank, so that a resumed run needs no
generator state and drops out the same units.
"""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.batches import ImpressionRows, RowColumns, collate
from bahe_tasks.core.columns import label_columns
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.heads import label_key
from bahe_tasks.core.label_loss import label_loss
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.ranks import Ranks
from bahe_tasks.core.schedule import learning_rate_share


class TrainingDivergedError(ArithmeticError):
    """A loss that is not a number."""


class UnknownLabelError(ValueError):
    """A weight of a label that is not in force."""


class TrainingStep:
    """What a step needs, and how it is taken."""

    def __init__(
        self,
        model: BaheCtrModel,
        optimizers: Optimizers,
        rows: ImpressionRows,
        embeddings: np.ndarray,
        columns: RowColumns,
        training: TrainingConfig,
        *,
        seed: int,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        names = model.spec.labels
        unknown = sorted(set(training.label_weights) - set(names))
        if unknown:
            raise UnknownLabelError(
                f"training.label_weights names {', '.join(unknown)}; labels in force are {', '.join(names)}"
            )
        self._model, self._optimizers, self._training = model, optimizers, training
        self._rows, self._embeddings, self._columns = rows, embeddings, columns
        self._labels = label_columns(rows.labels, rows.extra_labels, model.spec.extra_labels)
        self._weights = torch.tensor([training.label_weights.get(name, 1.0) for name in names], device=device)
        self._learned = training.label_weighting == "uncertainty" and len(names) > 1
        self._seed, self._ranks, self._device = seed, ranks, device
        self._rows_a_pass = training.rows_a_pass or training.batch_size

    def take(self, index: np.ndarray, *, number: int) -> tuple[float, float]:
        """Take step `number` on the rows at `index` (B,); return loss (nats) and gradient norm before clipping.

        Raises `TrainingDivergedError`.
        """
        loss = self._gradients(index, number)
        if self._ranks.size > 1:
            touched = [np.unique(column) for column in self._columns.cat[index].T]
            self._ranks.sum_gradients(loss, self._optimizers.dense, self._optimizers.tables, touched)
        norm = self._optimizers.clip(self._training.max_gradient_norm)
        loss_and_norm = torch.stack([loss, norm]).tolist()
        if not np.isfinite(loss_and_norm).all():
            raise TrainingDivergedError(
                f"loss {loss_and_norm[0]} and gradient norm {loss_and_norm[1]} at step {number}: "
                "lower training.deep_learning_rate or training.head_learning_rate"
            )
        spec = self._model.spec
        share = learning_rate_share(self._training, step=spec.trained_steps + number, day=spec.trained_days)
        self._optimizers.step(share, number=spec.trained_steps + number)
        return loss_and_norm[0], loss_and_norm[1]

    def _gradients(self, index: np.ndarray, number: int) -> torch.Tensor:
        """Compute this rank's gradients, halving the rows of a pass until they fit the device; return the loss."""
        while True:
            torch.manual_seed(_seed_of_step(self._seed, number, self._ranks.rank))
            try:
                return self._passes(index)
            except torch.OutOfMemoryError:
                tried = min(self._rows_a_pass, len(self._ranks.part(index)))
                if tried == 1:
                    raise
                self._rows_a_pass = (tried + 1) // 2
                warnings.warn(
                    f"the device ran out of memory: going on with {self._rows_a_pass} impressions a pass; "
                    "set training.rows_a_pass to it, or training.gradient_checkpointing",
                    stacklevel=2,
                )

    def _passes(self, index: np.ndarray) -> torch.Tensor:
        """Add up the gradients of this rank's part of the batch, pass by pass; return its part of the loss."""
        self._optimizers.zero_grad()
        counts = torch.from_numpy((~np.isnan(self._labels[index])).sum(0)).to(self._device)
        total = torch.zeros((), device=self._device)
        own = self._ranks.part(index)
        for start in range(0, len(own), self._rows_a_pass):
            part = own[start : start + self._rows_a_pass]
            loss = self._loss(part, counts=counts, part=len(part) / len(index))
            loss.backward()
            total += loss.detach()
        return total

    def _loss(self, index: np.ndarray, *, counts: torch.Tensor, part: float) -> torch.Tensor:
        model = self._model
        batch = collate(
            self._rows,
            self._embeddings,
            index,
            columns=self._columns,
            features=model.features,
            device=self._device,
        )
        labels = torch.from_numpy(self._labels[index]).to(self._device)
        log_variances = None
        if self._learned:
            log_variances = torch.stack([model.log_variances[label_key(label)] for label in model.spec.labels])
        bfloat16 = self._training.compute_dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(batch)
        return label_loss(
            logits.float(), labels, counts=counts, part=part, weights=self._weights, log_variances=log_variances
        )


def _seed_of_step(seed: int, number: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{number}\0{rank}".encode()).digest()[:8], "big")
