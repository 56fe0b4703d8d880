from itertools import combinations

import numpy as np
import torch

from bahe_tasks.core.length_groups import length_groups, pass_cost

CPU = torch.device("cpu")
COST = pass_cost(CPU, cheap_positions=False)


def cost(groups, lengths):
    return sum(len(group) * lengths[group].max() + COST for group in groups)


def test_every_sequence_is_in_one_group_and_shorter_groups_come_first():
    lengths = np.random.default_rng(0).integers(1, 51, size=200)
    groups = length_groups(lengths, pass_cost=COST)
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
        assert cost(length_groups(lengths, pass_cost=COST), lengths) == min(cost(groups, lengths) for groups in every)


def test_sequences_of_one_length_are_one_group_without_padding():
    assert [g.tolist() for g in length_groups(np.full(5, 7), pass_cost=COST)] == [[0, 1, 2, 3, 4]]


def test_where_positions_are_cheap_sequences_are_padded_rather_than_parted():
    lengths = np.random.default_rng(0).integers(1, 51, size=60)
    cheap = length_groups(lengths, pass_cost=pass_cost(CPU, cheap_positions=True))
    assert len(cheap) < len(length_groups(lengths, pass_cost=COST))
