from itertools import combinations

import numpy as np
import torch

from bahe_tasks.core import length_groups as module
from bahe_tasks.core.length_groups import length_groups

CPU = torch.device("cpu")


def cost(groups, lengths):
    return sum(len(group) * lengths[group].max() + module._POSITIONS_A_PASS["cpu"] for group in groups)


def test_every_sequence_is_in_one_group_and_shorter_groups_come_first():
    lengths = np.random.default_rng(0).integers(1, 51, size=200)
    groups = length_groups(lengths, device=CPU)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    longest = [lengths[group].max() for group in groups]
    assert longest == sorted(longest)


def test_no_other_cut_costs_less():
    for seed in range(20):
        lengths = np.random.default_rng(seed).choice([1, 2, 3, 7, 8, 20, 50], size=12)
        distinct = np.unique(lengths)
        cuts = [c for k in range(len(distinct)) for c in combinations(range(1, len(distinct)), k)]
        every = [
            [np.flatnonzero(np.isin(lengths, distinct[a:b])) for a, b in zip((0, *c), (*c, len(distinct)), strict=True)]
            for c in cuts
        ]
        assert cost(length_groups(lengths, device=CPU), lengths) == min(cost(groups, lengths) for groups in every)


def test_sequences_of_one_length_are_one_group_without_padding():
    assert [g.tolist() for g in length_groups(np.full(5, 7), device=CPU)] == [[0, 1, 2, 3, 4]]
