"""DIN of torch-rechub, with attention over the behaviors that are there.

The library's attention weighs padding as well: then a score depends on how long the other histories of its batch are,
and what is left for a short history's own behaviors on how much padding stands beside them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch_rechub.models.ranking import DIN
from torch_rechub.models.ranking.din import ActivationUnit


class Din(DIN):
    """The library's model with `FilledAttention`; the embedding of padding must be zero."""

    def __init__(
        self,
        features: list[Any],
        sequences: list[Any],
        targets: list[Any],
        mlp: dict[str, Any],
        attention: dict[str, Any],
    ) -> None:
        super().__init__(features, sequences, targets, mlp, attention)
        self.attention_layers = nn.ModuleList([FilledAttention(s.embed_dim, **attention) for s in sequences])


class FilledAttention(ActivationUnit):
    """Target attention of B histories of up to L behaviors, in whose normalisations padding has no part."""

    def forward(self, history: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Histories (B, L, D), zero where there is no behavior, and targets (B, D) → (B, D), zero of an empty history."""
        filled = history.any(-1)
        behaviors, of_target = history[filled], target[filled.nonzero()[:, 0]]
        if len(behaviors) < 2:  # none has another beside it; batch normalisation needs two
            return history.sum(1)
        read = torch.cat([of_target, behaviors, of_target - behaviors, of_target * behaviors], 1)
        logits = torch.full(filled.shape, torch.finfo(history.dtype).min, device=history.device)
        weights = logits.masked_scatter(filled, self.attention(read)[:, 0]).softmax(1)
        return (weights[:, :, None] * history).sum(1)
