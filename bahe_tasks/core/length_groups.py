"""Which sequences pass through the deep layers together: groups of similar length, padded to their longest.

Padding costs work, and so does one more pass. The cut of least total cost is found by dynamic programming over the
distinct lengths: a group costs its number of sequences times its longest, plus what a pass costs by itself.
"""

from __future__ import annotations

import numpy as np
import torch

_POSITIONS_A_PASS = {"cpu": 64, "cuda": 4096}
"""What one more pass costs, in positions. CPU: with 64 or 128 a replay of MovieTweetings takes 0.7 of the time that it takes with
8, whether one deep layer is trained or three (one-off, 2 cores). H200: twelve layers of the Qwen1.5-1.8B shape take 50 ms a
pass for whatever number of positions up to about 4,500, and 11 µs a position beyond."""
_CHEAP_POSITIONS_A_PASS = {"cpu": 1024, "cuda": 4096}
"""The same where the deep layers compute next to nothing at each position (`one_query`). CPU: with 1,024 a replay of MovieTweetings takes
0.83 of the time it takes with 64, and 0.94 of that in one group for all (one-off)."""


def pass_cost(device: torch.device, *, cheap_positions: bool) -> int:
    """Return what one more group costs on a device, in positions."""
    costs = _CHEAP_POSITIONS_A_PASS if cheap_positions else _POSITIONS_A_PASS
    return costs.get(device.type, costs["cuda"])


def length_groups(lengths: np.ndarray, *, pass_cost: int) -> list[np.ndarray]:
    """Return the indices of the sequences of each group, shortest group first; `lengths` (Q,) are at least 1."""
    distinct, counts = np.unique(lengths, return_counts=True)
    up_to = np.concatenate([[0], np.cumsum(counts)])
    best, cut_before = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, np.int64)
    for end in range(1, len(distinct) + 1):
        costs = best[:end] + (up_to[end] - up_to[:end]) * distinct[end - 1] + pass_cost
        cut_before[end] = int(np.argmin(costs))
        best[end] = costs[cut_before[end]]
    order, groups, end = np.argsort(lengths, kind="stable"), [], len(distinct)
    while end:
        start = cut_before[end]
        groups.append(order[up_to[start] : up_to[end]])
        end = start
    return groups[::-1]
