import torch

from bahe_tasks.core.batches import SequenceGroup
from bahe_tasks.core.sequence_inputs import AgeAndPosition, age_buckets, with_item_last, with_summary_last

MASK = torch.tensor([[True, True, True], [True, False, False]])


def group():
    return SequenceGroup(torch.ones(2, 3, 4), MASK, torch.zeros(2, 3), torch.tensor([0, 1]))


def test_age_buckets_grow_with_age_and_take_every_age():
    ages_s = torch.tensor([-5.0, 0.0, 60.0, 3600.0, 86400.0, 30 * 86400.0, 366 * 86400.0, 1e12])
    buckets = age_buckets(ages_s, num_buckets=16).tolist()
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-2], buckets[-1]) == (0, 15, 15)
    assert len(set(buckets[2:7])) == 5  # a minute, an hour, a day, a month and a year are told apart


def test_age_and_position_add_nothing_at_first_and_can_be_switched_off():
    at_first = AgeAndPosition(recency_buckets=4, position_buckets=4, width=4)
    assert torch.equal(at_first(group()), group().behaviors)
    off = AgeAndPosition(recency_buckets=0, position_buckets=0, width=4)
    assert torch.equal(off(group()), group().behaviors)
    assert not list(off.parameters())


def test_position_counts_from_the_newest_and_older_ones_share_the_last_vector():
    module = AgeAndPosition(recency_buckets=0, position_buckets=2, width=4)
    with torch.no_grad():
        module.position.weight[:] = torch.tensor([[10.0], [20.0]])
    assert module(group())[..., 0].tolist() == [[21, 21, 11], [11, 11, 11]]  # padding is masked, whatever it holds


def test_the_item_stands_after_the_newest_behavior_and_an_unknown_one_takes_no_position():
    titles = torch.full((2, 4), 7.0)
    hidden, mask = with_item_last(group().behaviors, MASK, titles, torch.tensor([False, True]))
    assert mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    assert hidden[1, :2, 0].tolist() == [1, 7]


def test_the_summary_stands_last_and_is_the_mean_of_what_is_present():
    behaviors = torch.tensor([[1.0, 2.0, 6.0], [5.0, 99.0, 99.0]]).unsqueeze(2).requires_grad_()
    hidden, mask = with_summary_last(behaviors, MASK)
    assert mask.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert hidden[0, :, 0].tolist() == [1, 2, 6, 3]
    assert hidden[1, :2, 0].tolist() == [5, 5]
    hidden[:, :, 0][mask].sum().backward()
    expected = torch.tensor([[4 / 3] * 3, [2, 0, 0]])  # itself, and its share of the mean
    torch.testing.assert_close(behaviors.grad.squeeze(2), expected)
