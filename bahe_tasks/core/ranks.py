"""Several processes that train one model together: each takes a part of every batch, gradients are summed.

All processes hold all rows and the same weights, so each knows the whole batch: the parts' losses are divided by the
batch's counts and the sum of the gradients is that of one process, within rounding.

Unusual: no wrapper of `torch.distributed` around the model. Gradients of hashed embeddings are sparse, and every
process can tell which rows a batch touches, so they are summed as one small dense block each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    def part(self, index: np.ndarray) -> np.ndarray:
        """Return this process's rows of a batch; rows of one user state mostly stay together. May be empty."""
        return np.array_split(index, self.size)[self.rank]

    def shared(self, value: float, device: torch.device) -> float:
        """Return the first process's value, so that all decide alike."""
        if self.size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(number, src=0)
        return float(number)

    def sum_gradients(
        self,
        loss: torch.Tensor,
        dense: Sequence[torch.Tensor],
        tables: Sequence[torch.Tensor],
        touched: Sequence[np.ndarray],
    ) -> None:
        """Replace the loss and every gradient by their sums over the processes.

        `touched` are for each table the sorted rows that the whole batch looks up.
        """
        dist.all_reduce(loss)
        used = torch.tensor([parameter.grad is not None for parameter in dense], dtype=torch.int32, device=loss.device)
        dist.all_reduce(used)  # what no process used has no gradient, and its optimiser leaves it alone
        trained = [parameter for parameter, count in zip(dense, used.tolist(), strict=True) if count]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        dist.all_reduce(flat)
        for parameter, summed in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = summed.view_as(parameter).clone()
        for table, rows in zip(tables, touched, strict=True):
            at = torch.from_numpy(rows).to(table.device)
            block = table.new_zeros(len(rows), table.shape[1])
            if table.grad is not None:
                own = table.grad.coalesce()
                block[torch.searchsorted(at, own.indices()[0])] = own.values()
            dist.all_reduce(block)
            table.grad = torch.sparse_coo_tensor(
                at.unsqueeze(0), block, table.shape, is_coalesced=True, check_invariants=False
            )


ALONE = Ranks()
