"""DeepFM, DCNv2 and DIN of the public library torch-rechub, trained day by day.

Fields: user, item, cat columns, the title and the behaviors of each text feature, which share the title's embeddings:
averaged in DeepFM and DCNv2, under target attention in DIN. Numbers pass a signed logarithm and batch normalisation.

Unusual: a day is trained on together with older rows drawn at random, `replayed` for each new one, since one pass over a
day's few hundred rows trains embeddings of ids too little. Embeddings follow SparseAdam, which moves only rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.ranking import DIN, DCNv2, DeepFM

from benchmarks.peers.inputs import Inputs

Architecture = Literal["deepfm", "dcn_v2", "din"]


@dataclass(frozen=True)
class NetworkSettings:
    """What was tuned."""

    architecture: Architecture
    width: int = 16
    """Of an embedding."""
    hidden_widths: tuple[int, ...] = (128, 64)
    cross_layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 3e-3
    embedding_decay: float = 1e-3
    """λ of λ·|e|² over the embeddings a row looks up, mean over rows."""
    batch_size: int = 256
    replayed: int = 3
    """Older rows trained on for each new row."""
    embedding_std: float = 0.02
    with_numbers: bool = False


class Network(nn.Module):
    """A library model and the normalisation of its numbers."""

    def __init__(self, inputs: Inputs, settings: NetworkSettings) -> None:
        super().__init__()
        self.num_numbers = inputs.numbers.shape[1] if settings.with_numbers else 0
        self.normalise = nn.BatchNorm1d(self.num_numbers, momentum=0.01, affine=False) if self.num_numbers else None
        self.model = _library_model(inputs, settings, self.num_numbers)
        for table in self.tables().values():
            table.sparse = True

    def tables(self) -> dict[str, nn.Embedding]:
        """Return the embedding tables by field."""
        return dict(self.model.embedding.embed_dict)

    def forward(self, fields: dict[str, torch.Tensor]) -> torch.Tensor:
        """Fields of B rows → click probabilities (B,)."""
        if self.normalise is not None:
            absent = torch.isnan(fields["numbers"])
            values = fields["numbers"].nan_to_num()
            values = self.normalise(values.sign() * values.abs().log1p()).clamp(-5, 5).masked_fill(absent, 0)
            fields = {**fields, "numbers": torch.cat([values, absent.float()], 1)}
        return self.model(fields)


class NetworkPeer:
    """A network that goes on learning every day."""

    def __init__(self, inputs: Inputs, settings: NetworkSettings, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.inputs, self.settings = inputs, settings
        self.network = Network(inputs, settings)
        tables = [table.weight for table in self.network.tables().values()]
        known = {id(weight) for weight in tables}
        rest = [p for p in self.network.parameters() if id(p) not in known]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.SparseAdam(tables, lr=settings.embedding_learning_rate),
            torch.optim.AdamW(rest, lr=settings.learning_rate, weight_decay=1e-4),
        ]
        self._rng = np.random.default_rng(seed)

    def score(self, rows: slice) -> np.ndarray:
        self.network.eval()
        with torch.no_grad():
            parts = [self.network(self._fields(index)) for index in _split(np.arange(rows.start, rows.stop), 1024)]
        return torch.cat(parts).double().numpy()

    def learn(self, rows: slice) -> None:
        self.network.train()
        new = np.arange(rows.start, rows.stop)
        older = self._rng.integers(rows.start, size=self.settings.replayed * len(new)) if rows.start else new[:0]
        index = self._rng.permutation(np.concatenate([new, older]))
        for part in _split(index, self.settings.batch_size):
            self._step(part)

    def _step(self, index: np.ndarray) -> None:
        fields = self._fields(index)
        labels = torch.from_numpy(self.inputs.labels[index])
        loss = binary_cross_entropy(self.network(fields), labels)
        tables = self.network.tables()
        for name, table in tables.items():
            loss = loss + self.settings.embedding_decay * table(fields[name]).square().sum() / len(index)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()

    def _fields(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        inputs = self.inputs
        fields = {name: codes[index] for name, codes in inputs.ids.items()} | {"title": inputs.titles[index]}
        histories = {name: codes[index] for name, codes in inputs.histories.items()}
        longest = max([1, *(int((codes > 0).sum(1).max()) for codes in histories.values())])
        fields |= {name: np.ascontiguousarray(codes[:, :longest]) for name, codes in histories.items()}
        if self.network.num_numbers:
            fields["numbers"] = inputs.numbers[index]
        return {name: torch.from_numpy(values) for name, values in fields.items()}


def _split(index: np.ndarray, size: int) -> list[np.ndarray]:
    """Split into parts of about equal length, none of one row alone: batch normalisation needs two."""
    return [part for part in np.array_split(index, max(1, round(len(index) / size))) if len(part)]


def _library_model(inputs: Inputs, settings: NetworkSettings, num_numbers: int) -> Any:
    start = RandomNormal(0, settings.embedding_std)
    width = settings.width
    ids = [SparseFeature(n, size, width, initializer=start) for n, size in inputs.vocabulary.items()]
    title = SparseFeature("title", inputs.num_texts, width, initializer=start)
    pooling = "concat" if settings.architecture == "din" else "mean"
    histories = [
        SequenceFeature(n, inputs.num_texts, width, pooling=pooling, shared_with="title", padding_idx=0)
        for n in inputs.histories
    ]
    dense = [DenseFeature("numbers", 2 * num_numbers)] if num_numbers else []
    mlp = {"dims": list(settings.hidden_widths), "dropout": settings.dropout}
    if settings.architecture == "din":
        targets = [SparseFeature("title", inputs.num_texts, width, initializer=start) for _ in histories]
        return DIN(ids, histories, targets, mlp, {"dims": [32], "activation": "dice"})
    if settings.architecture == "deepfm":
        return DeepFM([*ids, title, *histories], [*ids, title, *histories], mlp)
    return DCNv2([*ids, title, *histories, *dense], settings.cross_layers, mlp, use_low_rank_mixture=False)
