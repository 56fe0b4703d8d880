"""One step of the fine-tune: forward, backward and update on one batch, in as many passes as memory asks for.

Unusual: the random generator is seeded anew for each step, from seed, step and rank, so that a resumed run needs no
generator state and drops out the same units. What a step reads is prepared apart from taking it, so that a thread can do
so while the step before is taken (`one_ahead`); preparing draws nothing from the generator.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.batches import Batch, collate
from bahe_tasks.core.columns import label_columns, with_outcome_labels
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.halving import Halving
from bahe_tasks.core.heads import label_key
from bahe_tasks.core.label_loss import label_loss
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.ranks import Ranks
from bahe_tasks.core.schedule import learning_rate_share
from bahe_tasks.core.training_rows import ImpressionRows, RowColumns, num_behaviors
from bahe_tasks.core.window_level import WindowLevel
from bahe_tasks.wrong_use import WrongUseError

_WIDEST_BY_WIDTH = 4
"""Numbers of a position in the widest tensor of a layer, that of its MLP, by the width of the model; about, for most LLMs."""
_BYTES_OF_WIDEST = 20_000_000
"""What glibc keeps when it is freed. Memory above 32 MB goes back to the system, which clears it whenever it is asked for again:
a fifth of the processor time of a step on long histories (docs/benchmarks.md)."""


class TrainingDivergedError(ArithmeticError):
    """A loss that is not a number."""


class UnknownLabelError(WrongUseError):
    """A weight of a label that is not in force."""


@dataclass(frozen=True)
class Prepared:
    """What one step reads: a batch of rows, and of this rank's part of it the tensors, pass by pass."""

    index: np.ndarray  # (B,) int64, rows of the whole batch
    rows_a_pass: int
    passes: tuple[tuple[Batch, torch.Tensor], ...]  # labels are (B of the pass, L) float32


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
        names = model.spec.landed_labels
        unknown = sorted(set(training.label_weights) - set(names))
        if unknown:
            raise UnknownLabelError(
                f"training.label_weights names {', '.join(unknown)}; labels in force are {', '.join(names)}"
            )
        self._model, self._optimizers, self._training = model, optimizers, training
        self._rows, self._embeddings, self._columns = rows, embeddings, columns
        thresholds = model.spec.outcome_thresholds
        extra = with_outcome_labels(rows.extra_labels, rows.outcome_values, thresholds)
        self._labels = label_columns(rows.labels, extra, model.spec.labels[1:])
        weights = [
            *(training.label_weights.get(name, 1.0) for name in names),
            *[training.outcome_weight] * len(thresholds),
        ]
        self._weights = torch.tensor(weights, device=device)
        self._has_level = torch.zeros(len(weights), device=device)
        self._has_level[0] = training.level_learned < 1
        self._num_landed = len(names)
        self._learned = training.label_weighting == "uncertainty" and len(names) > 1
        self._seed, self._ranks, self._device = seed, ranks, device
        self._rows_a_pass = training.rows_a_pass or training.batch_size
        self._halving = Halving(
            device,
            unit="impressions a pass",
            advice="Set training.rows_a_pass lower to begin there, or training.gradient_checkpointing.",
        )
        self._positions_a_pass = training.positions_a_pass or default_positions_a_pass(embeddings.shape[1], device)
        self._num_behaviors = num_behaviors(rows, model.features)
        self._cheap_positions = model.cheap_positions  # tried here, not by the thread that prepares batches

    def prepare_ahead(self, index: np.ndarray) -> Prepared:
        """Do as `prepare` while another step is taken; where the device has no memory for both, `take` does it again."""
        try:
            return self.prepare(index)
        except torch.OutOfMemoryError:
            return Prepared(index, rows_a_pass=0, passes=())

    def prepare(self, index: np.ndarray) -> Prepared:
        """Return what the step on the rows at `index` (B,) int64 reads, on the device."""
        rows_a_pass = self._rows_a_pass
        parts = passes(
            self._ranks.part(index),
            states=self._columns.user_states,
            positions=self._num_behaviors,
            most_rows=rows_a_pass,
            most_positions=self._positions_a_pass,
        )
        return Prepared(index, rows_a_pass, tuple((self._batch(part), self._labels_of(part)) for part in parts))

    def take(self, prepared: Prepared, *, number: int, level: WindowLevel) -> tuple[float, float, WindowLevel]:
        """Take step `number` of a window of which so much is known.

        Return loss (nats), gradient norm before clipping and what is known then. Raises `TrainingDivergedError`.
        """
        told = self._gradients(prepared, number, level)
        if self._ranks.size > 1:
            self._ranks.sum_gradients(told, self._optimizers.dense, self._optimizers.tables)
        norm = self._optimizers.clip(self._training.max_gradient_norm)
        loss, surplus, information, norm_before = torch.cat([told, norm.reshape(1)]).tolist()
        if not np.isfinite([loss, norm_before]).all():
            raise TrainingDivergedError(
                f"loss {loss} and gradient norm {norm_before} at step {number}: "
                "lower training.deep_learning_rate, training.head_learning_rate or training.vector_learning_rate"
            )
        spec = self._model.spec
        share = learning_rate_share(self._training, step=spec.trained_steps + number)
        self._optimizers.step(share, number=spec.trained_steps + number)
        return loss, norm_before, level.after(surplus, information)

    def _gradients(self, prepared: Prepared, number: int, level: WindowLevel) -> torch.Tensor:
        """Compute this rank's gradients, halving the rows of a pass until they fit the device; return what `_passes` does."""
        while True:
            torch.manual_seed(_seed_of_step(self._seed, number, self._ranks.rank))
            try:
                if prepared.rows_a_pass != self._rows_a_pass:
                    prepared = self.prepare(prepared.index)
                return self._passes(prepared, level)
            except torch.OutOfMemoryError:
                tried = min(self._rows_a_pass, len(self._ranks.part(prepared.index)))
                if tried <= 1:
                    raise
            self._rows_a_pass = self._halving.of(tried)

    def _passes(self, prepared: Prepared, level: WindowLevel) -> torch.Tensor:
        """Add up the gradients of this rank's part of the batch, pass by pass.

        Return its part of the loss and of what `WindowLevel.after` asks for, (3,).
        """
        self._optimizers.zero_grad()
        index = prepared.index
        present = (~np.isnan(self._labels[index])).sum(0)
        present[self._num_landed :] = len(index)  # else the few rows with an outcome would outweigh all clicks
        counts = torch.from_numpy(present).to(self._device)
        total = torch.zeros(3, device=self._device)
        for batch, labels in prepared.passes:
            logits = self._logits(batch)
            clicked = torch.sigmoid(logits.detach()[:, 0] + level.log_odds)
            logits = logits + level.log_odds * self._has_level
            loss = self._loss(logits, labels, counts=counts, part=len(labels) / len(index))
            loss.backward()
            surplus, information = (labels[:, 0] - clicked).sum(), (clicked * (1 - clicked)).sum()
            total += torch.stack([loss.detach(), surplus, information])
        return total

    def _logits(self, batch: Batch) -> torch.Tensor:
        bfloat16 = self._training.compute_dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            logits: torch.Tensor = self._model(batch)
        return logits.float()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, *, counts: torch.Tensor, part: float) -> torch.Tensor:
        model, log_variances = self._model, None
        if self._learned:
            log_variances = torch.stack([model.log_variances[label_key(label)] for label in model.spec.landed_labels])
        return label_loss(logits, labels, counts=counts, part=part, weights=self._weights, log_variances=log_variances)

    def _batch(self, index: np.ndarray) -> Batch:
        return collate(
            self._rows,
            self._embeddings,
            index,
            columns=self._columns,
            features=self._model.features,
            device=self._device,
            cheap_positions=self._cheap_positions,
        )

    def _labels_of(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._labels[index]).to(self._device)


def default_positions_a_pass(width: int, device: torch.device) -> int:
    """Return the behaviors of a pass where `training.positions_a_pass` does not tell; 0: any number. `width` is H."""
    return max(1, _BYTES_OF_WIDEST // (4 * _WIDEST_BY_WIDTH * width)) if device.type == "cpu" else 0


def passes(
    index: np.ndarray, *, states: np.ndarray, positions: np.ndarray, most_rows: int, most_positions: int
) -> list[np.ndarray]:
    """Cut the rows at `index` into passes of at most so many rows and so many behaviors, those of a user state once.

    `states` and `positions` are (R,). 0 positions: any number. A row with more behaviors than that has a pass of its own.
    """
    starts, behaviors = [0], 0
    seen: set[int] = set()
    for n, row in enumerate(index.tolist()):
        more = 0 if states[row] in seen else int(positions[row])
        full = most_positions and more and behaviors + more > most_positions
        if n - starts[-1] == most_rows or (full and n > starts[-1]):
            starts.append(n)
            seen, behaviors, more = set(), 0, int(positions[row])
        seen.add(states[row])
        behaviors += more
    return np.split(index, starts[1:]) if len(index) else []


def _seed_of_step(seed: int, number: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{number}\0{rank}".encode()).digest()[:8], "big")
