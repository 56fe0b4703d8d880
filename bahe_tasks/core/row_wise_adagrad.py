"""Row-wise Adagrad for hashed embeddings: one sum of squared gradients a row, and only rows a batch holds are touched.

An id met rarely takes large steps, one met often small ones (Adagrad, Duchi et al., JMLR 2011; one number a row as in
Mudigere et al., ISCA 2022). The sums belong to the table as its weights do: without them every id starts anew.

Unusual: to a row's sum the mean of all squared gradients of its table is added, one typical gradient, and both are halved:
the first step of an id is as long as Adagrad's where its gradient is typical, and shorter where it is small. Adagrad's is as
long for any gradient: where few impressions are clicks most ids are first met without one, a small gradient that it takes for
a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_LEAST = 1e-10


class RowWiseAdagrad(torch.optim.Optimizer):
    """Tables (rows, width) with sparse gradients.

    State: `sum` (rows, 1), sums of the mean squared gradient of a row; `of_all` (2,) float64, over the table the sum of those
    that are not 0, and their number: several processes also hand over rows that were looked up without a gradient.
    """

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
        if "of_all" not in state:
            state["of_all"] = table.new_zeros(2, dtype=torch.float64)
        gradient = table.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        squares = values.square().mean(1, keepdim=True)
        state["sum"][rows] += squares
        state["of_all"] += torch.stack([squares.sum(), (squares > 0).sum().to(squares.dtype)])
        typical = (state["of_all"][0] / state["of_all"][1].clamp(min=1)).to(table.dtype)
        table[rows] -= lr * values / ((state["sum"][rows] + typical) / 2).clamp(min=_LEAST).sqrt()
