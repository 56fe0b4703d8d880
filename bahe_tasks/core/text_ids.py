"""A learned vector of each text beside its embedding, as ids have one: who cares for a text, beyond what it says.

Two titles may read alike and be loved by different users. A text's vector is learned from those who met it, a history has the mean of its
behaviors' vectors; both can be cached, and are published beside the embeddings.

Unusual: the row of a text in the table is a hash of the bits of its behavior embedding. Each text is encoded once and kept,
so equal texts have equal bits, and wherever an embedding goes its row can be told. Should a text be encoded anew, beside other texts or on
another machine, it may get other last bits, and its vector starts anew.
"""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import nn

_NUMBERS_READ = 32  # of an embedding: texts that differ do so in nearly all
_FACTOR_BITS, _SHIFT = 42, 26  # 16 bits of a number, 42 of its factor and 5 of the sum fit 63
_PRIOR_BEHAVIORS = 1.0
"""Behaviors whose vector is zero that every history is taken to hold."""


class TextIdEmbeddings(nn.Module):
    """Behavior embedding (H) → learned vector of the text (W), zero until it is trained on."""

    factors: torch.Tensor

    def __init__(self, num_rows: int, width: int) -> None:
        """`width` is W; texts that share one of the rows are not told apart."""
        super().__init__()
        self.table = nn.Embedding(num_rows, width, sparse=True)
        nn.init.zeros_(self.table.weight)
        self.register_buffer("factors", torch.tensor(_factors()), persistent=False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Behavior embeddings as they are stored, float16, in any dtype that holds them (…, H) → (…, W)."""
        return self.table(self.rows(embeddings))

    def rows(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(…, H) → row of each text, (…) int64."""
        bits = embeddings[..., :_NUMBERS_READ].to(torch.float16).contiguous().view(torch.int16).long()
        return ((bits * self.factors[: bits.shape[-1]]).sum(-1) >> _SHIFT) % self.table.num_embeddings

    def of_histories(self, behaviors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Behavior embeddings (Q, S, H) and mask (Q, S) → mean of each sequence's vectors, (Q, W)."""
        vectors = self(behaviors) * mask.unsqueeze(2)
        return vectors.sum(1) / (mask.sum(1, keepdim=True) + _PRIOR_BEHAVIORS)


def _factors() -> list[int]:
    """Return a random odd number for each number read, the same for all time."""
    digests = (sha256(str(n).encode()).digest() for n in range(_NUMBERS_READ))
    return [int.from_bytes(digest[:8], "big") >> (64 - _FACTOR_BITS) | 1 for digest in digests]
