"""What smoothed means expect of a click, added to what the CTR head says.

The factor starts at 1 and is learned. A head that starts at 0 so predicts the smoothed means before it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import pad

from bahe_tasks.core.point_in_time import EXPECTED_OF_NUMBERS
from bahe_tasks.core.user_fields import Field, spread


class ExpectedClick(nn.Module):
    """Point-in-time numbers → log-odds of a click that smoothed means expect, times a learned factor."""

    expected_of_numbers: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.register_buffer("expected_of_numbers", torch.tensor(EXPECTED_OF_NUMBERS), persistent=False)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, K) → (B,)."""
        return self.factor * (numbers @ self.expected_of_numbers)


def label_logits(
    head: nn.Module, expected: ExpectedClick | None, fields: Mapping[str, Field], *, click_only: bool = False
) -> torch.Tensor:
    """Fields (B, width of the field) each → (B, L): what the head says, for the click with what is expected of it.

    With `click_only` (B, 1), the click's.
    """
    logits: torch.Tensor = head(fields, click_only=click_only)
    if expected is None:
        return logits
    return logits + pad(expected(spread(fields["numbers"])).unsqueeze(1), (0, logits.shape[1] - 1))
