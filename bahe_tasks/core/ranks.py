"""Several processes that train one model together: each takes a part of every batch, gradients are summed.

All processes hold all rows and the same weights, so each knows the whole batch: the parts' losses are divided by the
batch's counts and the sum of the gradients is that of one process, within rounding.

Unusual: no wrapper of `torch.distributed` around the model. Gradients of hashed embeddings are sparse: the processes tell
each other which rows they looked up, and sum one small dense block of those a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import pad


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
    ) -> None:
        """Replace the loss and every gradient by their sums over the processes; those of tables are of rows looked up anywhere."""
        dist.all_reduce(loss)
        used = torch.tensor([parameter.grad is not None for parameter in dense], dtype=torch.int32, device=loss.device)
        dist.all_reduce(used)  # what no process used has no gradient, and its optimiser leaves it alone
        trained = [parameter for parameter, count in zip(dense, used.tolist(), strict=True) if count]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        dist.all_reduce(flat)
        for parameter, summed in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = summed.view_as(parameter).clone()
        for table in tables:
            own = None if table.grad is None else table.grad.coalesce()
            at = self._union(torch.zeros(0, dtype=torch.long, device=table.device) if own is None else own.indices()[0])
            block = table.new_zeros(len(at), table.shape[1])
            if own is not None:
                block[torch.searchsorted(at, own.indices()[0])] = own.values()
            dist.all_reduce(block)
            table.grad = torch.sparse_coo_tensor(
                at.unsqueeze(0), block, table.shape, is_coalesced=True, check_invariants=False
            )

    def _union(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows (int64) that any process has, sorted."""
        counts = [rows.new_zeros(1) for _ in range(self.size)]
        dist.all_gather(counts, rows.new_tensor([len(rows)]))
        most = max(int(count) for count in counts)
        if most == 0:
            return rows
        found = [rows.new_zeros(most) for _ in range(self.size)]
        dist.all_gather(found, pad(rows, (0, most - len(rows))))
        return torch.cat([part[: int(count)] for part, count in zip(found, counts, strict=True)]).unique()


ALONE = Ranks()
