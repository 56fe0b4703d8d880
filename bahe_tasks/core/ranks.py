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
        for parameter in dense:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in dense])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for parameter, summed in zip(dense, flat.split([p.numel() for p in dense]), strict=True):
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
