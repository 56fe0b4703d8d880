"""What is expected of a click, added to what the CTR head says: smoothed means, and how the newest labels went, those of the
whole log and those of the impression's categorical values.

The factor of the means starts at 1 and is learned. A head that starts at 0 so predicts the smoothed means before it is trained.

Factors of the newest labels start at 0: in most logs they say nothing, in some (a storm, a campaign, an outage) more than all
else. Those of the whole log cost the former kind AUC where the head reads them, added here next to none; those of categorical
values the head reads too (docs/quality.md). Each is learned in units of 1 / `_STEPS_OF_SHIFTS`, which makes its steps so many
times as large: one of a thousandth takes months on a small log.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import pad

from bahe_tasks.core.point_in_time import EXPECTED_OF_NUMBERS, NUM_SHIFTS, NUM_SHIFTS_OF_LOG
from bahe_tasks.core.user_fields import Field, spread

_STEPS_OF_SHIFTS = 3.0


class ExpectedClick(nn.Module):
    """Point-in-time numbers → log-odds of a click that smoothed means and the newest labels expect."""

    expected_of_numbers: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.factors_of_shifts = nn.Parameter(torch.zeros(NUM_SHIFTS))
        expected = torch.tensor(EXPECTED_OF_NUMBERS[:-NUM_SHIFTS_OF_LOG])
        self.register_buffer("expected_of_numbers", expected, persistent=False)

    def forward(self, numbers: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        """Numbers that heads read (B, K - NUM_SHIFTS_OF_LOG), and the last (B, NUM_SHIFTS) → (B,)."""
        of_shifts = shifts @ (_STEPS_OF_SHIFTS * self.factors_of_shifts)
        return self.factor * (numbers @ self.expected_of_numbers) + of_shifts


def label_logits(
    head: nn.Module, expected: ExpectedClick | None, fields: Mapping[str, Field], *, click_only: bool = False
) -> torch.Tensor:
    """Fields (B, width of the field) each → (B, L): what the head says, for the click with what is expected of it.

    With `click_only` (B, 1), the click's.
    """
    logits: torch.Tensor = head(fields, click_only=click_only)
    if expected is None:
        return logits
    of_click = expected(spread(fields["numbers"]), spread(fields["shifts"]))
    return logits + pad(of_click.unsqueeze(1), (0, logits.shape[1] - 1))
