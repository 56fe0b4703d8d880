"""Row-wise Adagrad for hashed embeddings: one sum of squared gradients a row, and only rows a batch holds are touched.

An id met rarely takes large steps, one met often small ones (Adagrad, Duchi et al., JMLR 2011; one number a row as in
Mudigere et al., ISCA 2022). The sums belong to the table as its weights do: without them every id starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_LEAST = 1e-10


class RowWiseAdagrad(torch.optim.Optimizer):
    """Tables (rows, width) with sparse gradients; state `sum` (rows, 1): sums of the mean squared gradient of a row."""

    def __init__(self, tables: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(tables, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group["lr"], self.state[table])

    @staticmethod
    def _update(table: torch.Tensor, lr: float, state: dict[str, Any]) -> None:
        if "sum" not in state:
            state["sum"] = table.new_zeros(len(table), 1)
        gradient = table.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        sums = state["sum"][rows] + values.square().mean(1, keepdim=True)
        state["sum"][rows] = sums
        table[rows] -= lr * values / sums.clamp(min=_LEAST).sqrt()
