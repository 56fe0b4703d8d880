"""What the deep layers read besides the behaviors themselves: age and position of each, the item beside them, a summary.

Unusual: the summary of a sequence is one more position, whose input is the mean of the others' inputs and whose output is
what is pooled. So the shallow layers' mean is carried past the deep layers by their residual connections, and only one
position of the last layer is ever needed. It is last: a decoder's sees all behaviors there.

Age and position are learned vectors added to a behavior, zero at first, so that an untrained model computes
what the pre-trained LLM does. An encoder such as BERT knows no order of behaviors otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import pad

from bahe_tasks.core.batches import SequenceGroup
from bahe_tasks.core.pooling import pool

_FINEST_AGE_S = 60.0
_COARSEST_AGE_S = 365 * 86400.0


class AgeAndPosition(nn.Module):
    """Adds learned vectors of age and position; either is switched off by 0 buckets."""

    def __init__(self, *, recency_buckets: int, position_buckets: int, width: int) -> None:
        """`width` is H."""
        super().__init__()
        self.recency = _zero_embedding(recency_buckets, width)
        self.position = _zero_embedding(position_buckets, width)

    def forward(self, group: SequenceGroup) -> torch.Tensor:
        """Q sequences padded right → (Q, S, H)."""
        hidden = group.behaviors
        if self.recency is not None:
            hidden = hidden + self.recency(age_buckets(group.ages_s, num_buckets=self.recency.num_embeddings))
        if self.position is not None:
            from_newest = group.mask.sum(1, keepdim=True) - 1 - torch.arange(hidden.shape[1], device=hidden.device)
            hidden = hidden + self.position(from_newest.clamp(0, self.position.num_embeddings - 1))
        return hidden


def age_buckets(ages_s: torch.Tensor, *, num_buckets: int) -> torch.Tensor:
    """Return the bucket of each age in seconds, equal steps of log(1 + age / minute) up to a year, the last one open."""
    log_age = torch.log1p(ages_s.clamp(min=0) / _FINEST_AGE_S)
    per_bucket = math.log1p(_COARSEST_AGE_S / _FINEST_AGE_S) / num_buckets
    return (log_age / per_bucket).long().clamp(max=num_buckets - 1)


def with_item_last(
    hidden: torch.Tensor, mask: torch.Tensor, titles: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put an item after the newest behavior of each sequence: (Q, S, H), mask (Q, S) → (Q, S + 1, H), (Q, S + 1).

    `titles` (Q, H) and `known` (Q,) are those of each sequence's impression; an unknown item takes no position.
    """
    return _with_last(hidden, mask, titles, known)


def with_summary_last(hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the mean of each sequence, padded right, after its last position: (Q, S, H) → (Q, S + 1, H), (Q, S + 1)."""
    return _with_last(hidden, mask, pool(hidden, mask, pooling="mean"), mask.any(1))


def _with_last(
    hidden: torch.Tensor, mask: torch.Tensor, vectors: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    sequence = torch.arange(len(hidden), device=hidden.device)
    end = mask.sum(1)
    hidden, mask = pad(hidden, (0, 0, 0, 1)), pad(mask, (0, 1))
    hidden[sequence, end] = vectors
    mask[sequence, end] = present
    return hidden, mask


def _zero_embedding(buckets: int, width: int) -> nn.Embedding | None:
    if not buckets:
        return None
    embedding = nn.Embedding(buckets, width)
    nn.init.zeros_(embedding.weight)
    return embedding
