"""Soft topics of texts: how much of what a user did is about what an item is about.

A user embedding carries the mean of a history, and a mean cannot tell one behavior that is just what the item is about from ten
that are a little like it. So each text is also told by its shares of Z topics, which are worked out before the mean: a
softmax over a linear map of its behavior embedding. A history has the mean of its behaviors' shares, and the head reads, for each
text feature, by how much they meet the title's (`met`). Both sides can be cached and published beside the embeddings.

Related: SDIM (Cao et al., CIKM 2022) lets the item attend to the behaviors that fall into its hash bucket. Here buckets are
soft and learned, and the user's side is one vector, whatever the item.

Unusual: the map starts from clusters of the first training rows' texts by what the whole LLM makes of them, read off their behavior
embeddings (`text_clusters`). Starts from random weights and from clusters of the embeddings gain less (docs/quality.md).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from bahe_tasks.core.text_clusters import linear_discriminants, spherical_k_means, temperature_for, units

_PRIOR_BEHAVIORS = 0.5
"""Behaviors about all topics alike that every history is taken to hold: an empty one meets every title as expected."""
_LARGEST_SHARE = 0.9
"""Mean over texts at the start: shares that are nearly 0 or 1 learn slowly, shares that are alike say nothing."""
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

    def start_from(self, embeddings: np.ndarray, whole: np.ndarray, *, seed: int) -> None:
        """Start from clusters of M texts: their behavior embeddings (M, H), and what the whole LLM makes of them (M, any width), by which they are clustered.

        Of texts that are all alike the map stays random.
        """
        shallow, to_cluster = (units(np.asarray(vectors, np.float32)) for vectors in (embeddings, whole))
        if not (_differ(shallow) and _differ(to_cluster)):
            return
        from_mean = units(to_cluster - to_cluster.mean(0))
        clusters = spherical_k_means(from_mean, self.num_topics, np.random.default_rng(seed))
        weight, bias = linear_discriminants(shallow, clusters, self.num_topics)
        temperature = temperature_for(shallow @ weight.T + bias, mean_largest=_LARGEST_SHARE)
        with torch.no_grad():
            self.map.weight.copy_(torch.from_numpy(weight / temperature))
            self.map.bias.copy_(torch.from_numpy(bias / temperature))


def met(user: torch.Tensor, item: torch.Tensor, num_topics: int) -> torch.Tensor:
    """Embeddings of users and items (…, E) that end in shares of topics → (…, 1): how much their topics meet.

    Half the log of their dot product against that of equal shares, 0 where either has those. Shares that never meet, as of a
    vector of zeros, are cut off at a millionth.
    """
    common = (user[..., -num_topics:] * item[..., -num_topics:]).sum(-1, keepdim=True)
    return torch.log((num_topics * common).clamp(min=1e-6)) / 2


def _differ(vectors: np.ndarray) -> bool:
    """Tell whether vectors (M, H) of length 1 differ by more than float16 can tell."""
    return bool(len(vectors)) and float(np.linalg.norm(vectors - vectors.mean(0), axis=1).mean()) >= _ALIKE_BELOW
