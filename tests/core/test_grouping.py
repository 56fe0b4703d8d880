"""Impressions of one user state share one deep pass: the same logits and gradients as one impression at a time."""

import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core import batches
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.score import score
from bahe_tasks.core.train import train
from bahe_tasks.core.training_rows import passed_together, row_columns, shuffled, user_states

CPU = torch.device("cpu")
STATE_OF = [0, 1, 0, 2, 1, 0, 3, 2]  # the user state each of eight impressions has; state 3 has no history at all


@pytest.fixture
def shared_rows(make_rows):
    """Eight impressions of four user states, shown at different times, of items that repeat."""
    rows = make_rows({"bills": [2, 5, 0, 0], "visits": [3, 0, 1, 0]}, seed=6)
    several = make_rows({"bills": [0] * 8, "visits": [0] * 8}, seed=7)
    return dataclasses.replace(
        several,
        title_rows=np.array([4, 7, 4, -1, 9, 7, 4, 4]),
        as_of=rows.shown_at[STATE_OF],
        histories={
            name: dataclasses.replace(history, starts=history.starts[STATE_OF], ends=history.ends[STATE_OF])
            for name, history in rows.histories.items()
        },
    )


def gradients(model, batches):
    model.zero_grad()
    logits = torch.cat([model(batch) for batch in batches])
    weight = torch.arange(1.0, 9.0).unsqueeze(1)
    (logits * weight).sum().backward()
    return logits, {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}


def test_user_states_are_told_apart_by_history_and_time(shared_rows):
    states = user_states(shared_rows, ("bills", "visits"))
    assert (states[:, None] == states).tolist() == (np.array(STATE_OF)[:, None] == STATE_OF).tolist()
    later = dataclasses.replace(shared_rows, as_of=shared_rows.as_of + np.arange(8))
    assert len(set(user_states(later, ("bills", "visits")).tolist())) == 8  # the ages of behaviors differ
    without = dataclasses.replace(later, histories={})
    assert len(set(user_states(without, ("bills", "visits")).tolist())) == 1


def test_shared_histories_and_titles_pass_the_deep_layers_once(shared_rows, tiny_spec, embeddings, batch_of):
    batch = batch_of(shared_rows, embeddings, tiny_spec)
    assert batch.users.num_rows == 4
    assert (
        sum(len(group.slots) for group in batch.users.groups) == 4
    )  # two states of two features, two of one, one of none
    assert len(batch.items.titles) == 4


@pytest.mark.parametrize(
    "settings", [{}, {"head": "deepfm"}, {"head": "dcn_v2"}, {"head": "din"}, {"item_reading": "beside"}, {"head": "din", "item_reading": "beside"}],
    ids=["mlp", "deepfm", "dcn_v2", "din", "beside", "din beside"],
)  # fmt: skip
def test_logits_and_gradients_equal_those_of_one_impression_at_a_time(
    settings, with_model, tiny_split, fill, shared_rows, embeddings, batch_of
):
    spec = with_model(**settings)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    order = [5, 0, 3, 1, 7, 2, 6, 4]  # a batch need not be in the order of the states
    together, of_together = gradients(model, [batch_of(shared_rows, embeddings, spec, order)])
    alone, of_alone = gradients(model, [batch_of(shared_rows, embeddings, spec, [r]) for r in order])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert of_together.keys() == of_alone.keys()
    for name, gradient in of_alone.items():
        torch.testing.assert_close(of_together[name], gradient, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_scores_come_back_in_the_order_of_the_rows(tiny_model, shared_rows, embeddings):
    whole = score(tiny_model, shared_rows, embeddings, batch_size=3, device=CPU)
    for r in range(8):
        one = score(tiny_model, shared_rows, embeddings, index=np.array([r]), batch_size=1, device=CPU)
        assert whole[r] == pytest.approx(one[0], abs=1e-6)


def test_rows_of_one_user_state_are_trained_on_together(tiny_split, tiny_spec, shared_rows, embeddings, monkeypatch):
    import bahe_tasks.core.training_step as module

    seen = []
    collate = module.collate
    monkeypatch.setattr(module, "collate", lambda *a, **k: (seen.append(a[2].tolist()), collate(*a, **k))[1])
    model = new_model(tiny_spec, tiny_split().deep, seed=1)
    train(model, shared_rows, embeddings, training=TrainingConfig(batch_size=3), seed=1, device=CPU)
    order = [row for batch in seen for row in batch]
    assert sorted(order) == list(range(8))
    states = row_columns(shared_rows, tiny_spec).user_states[order]
    assert len(np.flatnonzero(np.diff(states))) + 1 == len(set(states.tolist()))
    train(model, shared_rows, embeddings, training=TrainingConfig(batch_size=3), seed=2, device=CPU)
    assert [row for batch in seen for row in batch][8:] != order


def test_rows_without_a_history_are_shuffled_one_by_one(tiny_spec, make_rows):
    rows = make_rows({"bills": [2, 0, 3, 0, 0], "visits": [0, 0, 1, 0, 0]}, seed=1)
    columns = row_columns(rows, tiny_spec)
    assert len(set(columns.user_states[[1, 3, 4]].tolist())) == 1
    states = passed_together(rows, tiny_spec.features, columns)
    assert len(set(states.tolist())) == 5
    orders = {tuple(shuffled(states, seed=(seed,)).tolist()) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)


def test_beside_the_item_every_impression_is_a_user_state(with_model, shared_rows):
    assert row_columns(shared_rows, with_model(item_reading="beside")).user_states.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("settings", "family", "num_shallow_layers", "expected"),
    [
        ({"behavior_pooling": "summary"}, "bert", 2, True),
        ({"behavior_pooling": "summary"}, "bert", 3, True),  # no deep layer at all
        ({"behavior_pooling": "summary"}, "bert", 1, False),  # one layer computes every position
        ({"behavior_pooling": "summary"}, "llama", 2, False),  # keys of every position
        ({"behavior_pooling": "mean"}, "bert", 2, False),
        ({"behavior_pooling": "summary", "head": "din"}, "bert", 2, False),
    ],
)
def test_positions_are_cheap_where_next_to_nothing_is_computed_at_each(
    settings, family, num_shallow_layers, expected, with_model, tiny_split, tiny_rows, embeddings, monkeypatch
):
    spec = with_model(**settings)
    model = new_model(spec, tiny_split(family, num_shallow_layers).deep, seed=3)
    assert model.cheap_positions is expected
    seen = []
    monkeypatch.setattr(batches, "pass_cost", lambda device, *, cheap_positions: seen.append(cheap_positions) or 64)
    train(model, tiny_rows, embeddings, training=TrainingConfig(epochs=1), seed=1, device=CPU)
    score(model, tiny_rows, embeddings, batch_size=4, device=CPU)
    assert set(seen) == {expected}
