"""The numbers' own part of the click's logit, added to that of the CTR head.

It is what smoothed means expect, times a learned factor that starts at 1, plus a small MLP over point-in-time numbers,
hashed and numeric columns that starts at 0: an untrained model predicts the smoothed means.

Unusual: the numbers do not enter the CTR head. Beside a few thousand embedding dimensions in one layer they learn worse,
and so does the text (docs/quality.md).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad

from bahe_tasks.core.head_fields import field_sizes
from bahe_tasks.core.heads import HEADS, DcnV2Head, DeepFmHead, MlpHead, Tower
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import EXPECTED_OF_NUMBERS


class NumbersTower(nn.Module):
    """Fields of numbers and columns → the part of the click's logit that needs no text."""

    expected_of_numbers: torch.Tensor

    def __init__(self, sizes: dict[str, int], spec: ModelSpec) -> None:
        super().__init__()
        widths = spec.model.numbers_widths
        self.names = tuple(name for name in sizes if name == "numbers" or name.startswith(("id:", "cat:", "num:")))
        self.tower = Tower({name: sizes[name] for name in self.names}, widths, dropout=spec.model.dropout)
        self.output = nn.Linear(widths[-1], 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.expectation = nn.Parameter(torch.ones(()))
        self.register_buffer("expected_of_numbers", torch.tensor(EXPECTED_OF_NUMBERS), persistent=False)

    def forward(self, fields: dict[str, torch.Tensor]) -> torch.Tensor:
        """Fields (B, width of the field) each → (B,)."""
        expected = fields["numbers"] @ self.expected_of_numbers
        return self.expectation * expected + self.output(self.tower(fields))[:, 0]


def head_and_tower(spec: ModelSpec, *, width: int) -> tuple[MlpHead | DeepFmHead | DcnV2Head, NumbersTower | None]:
    """Return the untrained CTR head of a model and its numbers' tower, `None` where it reads no numbers; `width` is H."""
    sizes = field_sizes(spec, width=width)
    tower = NumbersTower(sizes, spec) if spec.numbers else None
    head = HEADS[spec.model.head]({name: sizes[name] for name in sizes if name != "numbers"}, spec.labels, spec.model)
    return head, tower


def click_logits(head: nn.Module, tower: NumbersTower | None, fields: dict[str, torch.Tensor]) -> torch.Tensor:
    """Fields (B, width of the field) each → (B, L): what the head says, for the click with what the tower adds."""
    logits: torch.Tensor = head({name: field for name, field in fields.items() if name != "numbers"})
    return logits if tower is None else logits + pad(tower(fields).unsqueeze(1), (0, logits.shape[1] - 1))
