"""Soft topics of texts: how much of what a user did is about what an item is about.

A user embedding carries the mean of a history, and a mean cannot tell one behavior that is just what the item is about from ten
that are a little like it. So each text is also told by its shares of Z topics, which are worked out before the mean: a
softmax over a linear map of its behavior embedding. A history has the mean of its behaviors' shares, and the head reads, for each
text feature, by how much they meet the title's (`met`). Both sides can be cached and published beside the embeddings.

Related: SDIM (Cao et al., CIKM 2022) lets the item attend to the behaviors that fall into its hash bucket. Here buckets are
soft and learned, and the user's side is one vector, whatever the item.

Unusual: the map starts from spherical k-means over the texts of the first training rows. From random weights it gains a third
as much in two thousand steps (docs/quality.md).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

_PRIOR_BEHAVIORS = 0.5
"""Behaviors about all topics alike that every history is taken to hold: an empty one meets every title as expected."""
_TEMPERATURE = 0.1
"""Of the softmax over cosines to the centres."""
_TEXTS_CLUSTERED = 10_000
_ROUNDS = 10
_SMALLEST_NORM = 1e-6
_ALIKE_BELOW = 1e-3
"""Mean distance of unit vectors to their mean: what float16 can tell."""


class TextTopics(nn.Module):
    """Behavior embedding (H) → shares of Z topics, which sum to 1."""

    def __init__(self, width: int, num_topics: int) -> None:
        """`width` is H."""
        super().__init__()
        self.map = nn.Linear(width, num_topics)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(…, H) → (…, Z). Of a zero vector, a text not known, all shares are those of the bias alone."""
        with torch.no_grad():  # embeddings come from frozen layers: nothing of their size is kept for the backward pass
            norms = embeddings.norm(dim=-1, keepdim=True).clamp(min=_SMALLEST_NORM)
        return (linear(embeddings, self.map.weight) / norms + self.map.bias).softmax(-1)

    def of_histories(self, behaviors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Behavior embeddings (Q, S, H) and mask (Q, S) → mean shares of each sequence, (Q, Z)."""
        shares = self(behaviors) * mask.unsqueeze(2)
        return (shares.sum(1) + _PRIOR_BEHAVIORS / self.num_topics) / (mask.sum(1, keepdim=True) + _PRIOR_BEHAVIORS)

    @property
    def num_topics(self) -> int:
        """Z."""
        return self.map.out_features

    def start_from(self, embeddings: np.ndarray, texts: np.ndarray, *, seed: int) -> None:
        """Start from the clusters of some texts, rows of the embeddings (M, H); of texts that are all alike the map stays random."""
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.permutation(texts)[:_TEXTS_CLUSTERED])
        if not len(chosen):
            return
        units = _units(np.asarray(embeddings[chosen], np.float32))
        mean = units.mean(0, dtype=np.float64).astype(np.float32)
        from_mean = units - mean
        distance = float(np.linalg.norm(from_mean, axis=1).mean())
        if distance < _ALIKE_BELOW:
            return
        centres = _spherical_k_means(_units(from_mean), self.num_topics, generator)
        weight = torch.from_numpy(centres / (_TEMPERATURE * distance))
        with torch.no_grad():
            self.map.weight.copy_(weight)
            self.map.bias.copy_(-weight @ torch.from_numpy(mean))


def met(user: torch.Tensor, item: torch.Tensor, num_topics: int) -> torch.Tensor:
    """Embeddings of users and items (…, E) that end in shares of topics → (…, 1): how much their topics meet.

    Half the log of their dot product against that of equal shares, 0 where either has those. Shares that never meet, as of a
    vector of zeros, are cut off at a millionth.
    """
    common = (user[..., -num_topics:] * item[..., -num_topics:]).sum(-1, keepdim=True)
    return torch.log((num_topics * common).clamp(min=1e-6)) / 2


def _spherical_k_means(units: np.ndarray, num_clusters: int, generator: np.random.Generator) -> np.ndarray:
    """Return unit centres of M unit vectors, (Z, H) float32. With fewer vectors the rest of the centres are random."""
    centres = _units(generator.normal(size=(num_clusters, units.shape[1])).astype(np.float32))
    first = generator.permutation(len(units))[:num_clusters]
    centres[: len(first)] = units[first]
    for _ in range(_ROUNDS):
        nearest = (units @ centres.T).argmax(1)
        totals = np.zeros_like(centres)
        np.add.at(totals, nearest, units)
        filled = np.linalg.norm(totals, axis=1) > _SMALLEST_NORM
        centres[filled] = _units(totals[filled])
    return centres


def _units(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (…, H) to length 1; a zero vector stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SMALLEST_NORM)
