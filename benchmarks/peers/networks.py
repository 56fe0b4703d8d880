"""DeepFM, DCNv2 and DIN of the public library torch-rechub, and an MLP over sentence embeddings, trained day by day.

Fields: ids (`inputs.py`), the title, and the behaviors of each text feature, which share the title's embeddings:
averaged in DeepFM and DCNv2, averaged and under target attention in DIN (`din.py`). Numbers pass a signed logarithm and batch
normalisation.

Unusual: every row is trained on once. Further epochs or replayed older rows overfit the ids at once and cost 0.01 to
0.02 of AUC. What helps instead is Adagrad on the embeddings, whose steps are large for an id seen rarely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.ranking import DCNv2, DeepFM

from benchmarks.peers.din import Din
from benchmarks.peers.inputs import Inputs
from benchmarks.peers.sentence_mlp import SentenceMlp

Architecture = Literal["deepfm", "dcn_v2", "din", "sentence_mlp"]
_SCORED_AT_ONCE = 1024


@dataclass(frozen=True)
class NetworkSettings:
    """What was tuned; the defaults are what was best."""

    architecture: Architecture
    width: int = 16
    """Of an embedding."""
    hidden_widths: tuple[int, ...] = (128, 64)
    cross_layers: int = 2
    """Of DCNv2."""
    attention_widths: tuple[int, ...] = (32,)
    """Of DIN."""
    dropout: float = 0.5
    learning_rate: float = 1e-3
    """Of AdamW, for all but embeddings."""
    embedding_learning_rate: float = 0.05
    """Of Adagrad, for embeddings."""
    embedding_decay: float = 1e-3
    """λ of λ·|e|² over the embeddings of ids and title that a row looks up."""
    embedding_std: float = 0.02
    """Of first values."""
    batch_size: int = 64
    replayed: int = 0
    """Older rows, drawn at random, trained on for each new row."""
    with_numbers: bool = False


class Network(nn.Module):
    """A library model and the normalisation of its numbers."""

    def __init__(self, inputs: Inputs, settings: NetworkSettings, sentences: np.ndarray | None) -> None:
        super().__init__()
        self.num_numbers = inputs.numbers.shape[1] if settings.with_numbers else 0
        self.normalise = nn.BatchNorm1d(self.num_numbers, momentum=0.01, affine=False) if self.num_numbers else None
        self.model = _model(inputs, settings, num_numbers=self.num_numbers, sentences=sentences)
        for table in self.tables().values():
            table.sparse = True

    def tables(self) -> dict[str, nn.Embedding]:
        """Return the embedding tables by field."""
        return dict(self.model.embedding.embed_dict.items())

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

    def __init__(
        self, inputs: Inputs, settings: NetworkSettings, *, seed: int, sentences: np.ndarray | None = None
    ) -> None:
        """`sentences` (M, D) are embeddings of the log's texts, for `sentence_mlp`."""
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._inputs, self._settings = inputs, settings
        self._seen = np.empty(0, np.int64)
        self._network = Network(inputs, settings, sentences)
        tables = [table.weight for table in self._network.tables().values()]
        ids = {id(weight) for weight in tables}
        rest = [p for p in self._network.parameters() if id(p) not in ids and p.requires_grad]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adagrad(tables, lr=settings.embedding_learning_rate),
            torch.optim.AdamW(rest, lr=settings.learning_rate, weight_decay=1e-4),
        ]

    def score(self, rows: slice) -> np.ndarray:
        self._network.eval()
        with torch.no_grad():
            index = np.arange(rows.start, rows.stop)
            parts = [self._network(self._fields(part)) for part in _parts(index, _SCORED_AT_ONCE)]
        return torch.cat(parts).double().numpy()

    def learn(self, rows: np.ndarray) -> None:
        self._network.train()
        num_older = self._settings.replayed * len(rows) if len(self._seen) else 0
        older = self._seen[self._rng.integers(len(self._seen) or 1, size=num_older)]
        index = self._rng.permutation(np.concatenate([rows, older]))
        self._seen = np.concatenate([self._seen, rows])
        for part in _parts(index, self._settings.batch_size):
            if len(part) > 1:  # batch normalisation needs two
                self._step(part)

    def _step(self, index: np.ndarray) -> None:
        fields = self._fields(index)
        loss = binary_cross_entropy(self._network(fields), torch.from_numpy(self._inputs.labels[index]))
        for name, table in self._network.tables().items():
            loss = loss + self._settings.embedding_decay * table(fields[name]).square().sum() / len(index)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()

    def _fields(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        inputs = self._inputs
        fields = {name: codes[index] for name, codes in inputs.ids.items()} | {"title": inputs.titles[index]}
        histories = {name: codes[index] for name, codes in inputs.histories.items()}
        longest = max([1, *(int((codes > 0).sum(1).max()) for codes in histories.values())])
        fields |= {name: np.ascontiguousarray(codes[:, :longest]) for name, codes in histories.items()}
        if self._network.num_numbers:
            fields["numbers"] = inputs.numbers[index]
        return {name: torch.from_numpy(values) for name, values in fields.items()}


def _parts(index: np.ndarray, size: int) -> list[np.ndarray]:
    """Split into parts of about equal length."""
    return np.array_split(index, max(1, round(len(index) / size)))


def _model(
    inputs: Inputs, settings: NetworkSettings, *, num_numbers: int, sentences: np.ndarray | None
) -> SentenceMlp | Din | DCNv2 | DeepFM:
    start, width = RandomNormal(0, settings.embedding_std), settings.width
    ids = [SparseFeature(n, size, width, initializer=start) for n, size in inputs.vocabulary.items()]
    title = SparseFeature("title", inputs.num_texts, width, padding_idx=0, initializer=start)
    texts = {"vocab_size": inputs.num_texts, "embed_dim": width, "shared_with": "title", "padding_idx": 0}
    means = [SequenceFeature(name, pooling="mean", **texts) for name in inputs.histories]
    mlp = {"dims": list(settings.hidden_widths), "dropout": settings.dropout}
    match settings.architecture:
        case "deepfm":
            fields = [*ids, title, *means]
            return DeepFM(fields, fields, mlp)
        case "dcn_v2":
            numbers = [DenseFeature("numbers", 2 * num_numbers)] if num_numbers else []
            fields = [*ids, title, *means, *numbers]
            return DCNv2(fields, settings.cross_layers, mlp, use_low_rank_mixture=False)
        case "din":
            sequences = [SequenceFeature(name, pooling="concat", **texts) for name in inputs.histories]
            attention = {"dims": list(settings.attention_widths), "activation": "dice", "use_softmax": True}
            return Din([*ids, *means], sequences, [title] * len(sequences), mlp, attention)
        case "sentence_mlp":
            if sentences is None:
                raise ValueError("sentence_mlp needs the sentence embeddings of the log's texts")
            padded = torch.from_numpy(np.pad(sentences.astype(np.float32), ((2, 0), (0, 0))))
            return SentenceMlp(
                ids, list(inputs.histories), padded, hidden_widths=settings.hidden_widths, dropout=settings.dropout
            )
