"""One vector out of a sequence of hidden states: of a text's tokens, or of a history's behaviors."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn


def pool(hidden: torch.Tensor, mask: torch.Tensor, *, pooling: Literal["mean", "first", "last"]) -> torch.Tensor:
    """Pool (B, S, H) over the positions present in mask (B, S), at least one a row, padded on either side → (B, H)."""
    if pooling == "mean":
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), pooled_position(mask, pooling=pooling)]


def pooled_position(mask: torch.Tensor, *, pooling: Literal["first", "last"]) -> torch.Tensor:
    """Return the one position that is pooled of each row of mask (B, S): (B,) int64."""
    present = mask.long()
    return present.argmax(1) if pooling == "first" else mask.shape[1] - 1 - present.flip(1).argmax(1)


class AttentionPool(nn.Module):
    """Weighted mean whose weights are learned: softmax over a row's positions of query · tanh(W h + b) / √H.

    Additive attention with one query (Bahdanau et al., 2015, equation 6 without the decoder's state), scaled as in
    Vaswani et al., 2017. The query is zero at first, so that an untrained one is the mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool (B, S, H) over the positions present in mask (B, S), at least one a row → (B, H)."""
        scores = torch.tanh(self.project(hidden)) @ self.query / math.sqrt(hidden.shape[2])
        weights = scores.float().masked_fill(~mask.bool(), -torch.inf).softmax(1).to(hidden.dtype)
        return (hidden * weights.unsqueeze(-1)).sum(1)
