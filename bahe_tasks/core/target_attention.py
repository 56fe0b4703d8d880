"""Target attention of DIN: how much of each behavior counts depends on the candidate item.

Source: Zhou et al., Deep Interest Network, KDD 2018, section 4.3. The weights are not normalised, as there: their sum is
the strength of the interest.

Unusual: the activation unit reads [item, behavior, item − behavior, item ⊙ behavior]. Its first linear map is kept as
three, of item, behavior and product, which span the same functions; so the item's part is computed once a sequence.
The last map starts at zero: at first nothing is attended to. Item and behaviors are brought to unit root mean square and
the sum is divided by the root of a usual length, since hidden states of an LLM's middle may be hundreds large and sums of
their products then drown every other input.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import rms_norm

_USUAL_LENGTH = 50


class TargetAttention(nn.Module):
    """Weighted sum of a sequence, the weights from an MLP over item and behavior."""

    def __init__(self, width: int, hidden_width: int) -> None:
        """`width` is H."""
        super().__init__()
        self.of_item = nn.Linear(width, hidden_width)
        self.of_behavior = nn.Linear(width, hidden_width, bias=False)
        self.of_product = nn.Linear(width, hidden_width, bias=False)
        self.activation = nn.PReLU()
        self.weight = nn.Linear(hidden_width, 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    def forward(self, item: torch.Tensor, behaviors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Items (Q, H), behaviors (Q, S, H), mask (Q, S) → (Q, H)."""
        width = (item.shape[-1],)
        item, behaviors = rms_norm(item, width).unsqueeze(1), rms_norm(behaviors, width)
        hidden = self.of_item(item) + self.of_behavior(behaviors) + self.of_product(item * behaviors)
        weight = self.weight(self.activation(hidden)) * mask.unsqueeze(-1)
        return (weight * behaviors).sum(1) / math.sqrt(_USUAL_LENGTH)
