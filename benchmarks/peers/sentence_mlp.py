"""Frozen sentence embeddings and ids under an MLP: what a language model gives without being trained.

The title's embedding, the mean embedding of each text feature's history, their products, and learned embeddings of ids.
"""

from __future__ import annotations

import torch
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.basic.layers import MLP, EmbeddingLayer


class SentenceMlp(nn.Module):
    """Fields of B rows → click probabilities (B,), like the models of torch-rechub."""

    def __init__(
        self,
        ids: list[SparseFeature],
        histories: list[str],
        sentences: torch.Tensor,
        *,
        hidden_widths: tuple[int, ...],
        dropout: float,
    ) -> None:
        """`sentences` (M + 2, D) float32 are the embeddings by text code, those of 0 and 1 all zero."""
        super().__init__()
        self.ids, self.histories = ids, histories
        self.embedding = EmbeddingLayer(ids)
        self.mean = nn.EmbeddingBag.from_pretrained(sentences, freeze=True, mode="mean", padding_idx=0)
        width = sentences.shape[1] * (1 + 2 * len(histories)) + sum(feature.embed_dim for feature in ids)
        self.normalise = nn.BatchNorm1d(width, momentum=0.05)
        self.mlp = MLP(width, dims=list(hidden_widths), dropout=dropout)

    def forward(self, fields: dict[str, torch.Tensor]) -> torch.Tensor:
        title = self.mean(fields["title"][:, None])
        means = [self.mean(fields[name]) for name in self.histories]
        ids = self.embedding(fields, self.ids, squeeze_dim=True)
        inputs = torch.cat([ids, title, *means, *(title * mean for mean in means)], 1)
        return torch.sigmoid(self.mlp(self.normalise(inputs))[:, 0])
