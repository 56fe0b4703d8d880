"""A user's share of a head done once against every pair apart, for each head."""

import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.core import score as score_module
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.heads import HEADS
from bahe_tasks.core.score import score_pairs

CPU = torch.device("cpu")
COUNTS = (1, 9, 4, 40, 2, *[3] * 40)  # of 45 users


def with_shares(vectors, rng):
    """Vectors (…, 32) of the tiny LLM → with shares of four topics and a text id of three numbers beside them."""
    beside = [rng.dirichlet(np.ones(4), vectors.shape[:-1]), rng.standard_normal((*vectors.shape[:-1], 3))]
    return np.concatenate([vectors, *beside], -1).astype(np.float32)


@pytest.fixture
def pairs():
    """Arguments of `score_pairs` for 176 pairs in any order, one item without embeddings of its own user."""
    rng = np.random.default_rng(5)
    user_of = rng.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    item_of = rng.integers(30, size=len(user_of))
    histories = with_shares(rng.standard_normal((len(COUNTS), 2, 32)), rng)
    lengths = rng.uniform(-1, 1, (len(COUNTS), 2, 1))
    return {
        "user_embedding": np.concatenate([histories, lengths], 2, dtype=np.float32).reshape(len(COUNTS), -1),
        "item_embedding": with_shares(2 * rng.standard_normal((30, 32)), rng),
        "user_of": user_of,
        "item_of": item_of,
        "user_ids": np.array([f"u{u}" for u in user_of], object),
        "item_ids": np.array([f"m{i}" for i in item_of], object),
        "cat": {"genre": np.array([f"genre{i % 3}" for i in item_of], object)},
        "num": {"price": rng.normal(10, 4, len(user_of))},
    }


def one_by_one(pairs):
    apart = {name: pairs[name] for name in ("user_ids", "item_ids", "cat", "num")}
    return apart | {
        "user_embedding": pairs["user_embedding"][pairs["user_of"]],
        "item_embedding": pairs["item_embedding"][pairs["item_of"]],
    }


@pytest.mark.parametrize("head", sorted(set(HEADS) - {"din"}))
@pytest.mark.parametrize("batch_size", [4096, 50, 7])
def test_users_with_many_pairs_score_as_each_pair_apart(
    tiny_split, with_model, fill, pairs, head, batch_size, monkeypatch
):
    monkeypatch.setattr(score_module, "_MIN_PAIRS_A_USER", 1)
    model = fill(new_model(with_model(head=head), tiny_split().deep, seed=3))
    expected = score_pairs(model, **one_by_one(pairs), device=CPU)
    assert expected.std() > 0.01
    found = score_pairs(model, **pairs, batch_size=batch_size, device=CPU)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_both_ways_are_taken(tiny_model, pairs, monkeypatch):
    ways = []
    logit = type(tiny_model).click_logit

    def watched(self, *tensors, counts=None):
        ways.append(counts is not None)
        return logit(self, *tensors, counts=counts)

    monkeypatch.setattr(type(tiny_model), "click_logit", watched)
    for least in (1, 1000):
        monkeypatch.setattr(score_module, "_MIN_PAIRS_A_USER", least)
        score_pairs(tiny_model, **pairs, device=CPU)
    assert ways == [True, False]


def test_a_model_without_text_features_scores_many_pairs_of_a_user(tiny_split, with_model, fill, pairs):
    spec = dataclasses.replace(with_model(head="mlp"), features=())
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    nothing = np.zeros((len(COUNTS), 0), np.float32)
    together = score_pairs(model, **pairs | {"user_embedding": nothing, "user_of": pairs["user_of"] // 9}, device=CPU)
    apart = score_pairs(model, **one_by_one(pairs | {"user_embedding": nothing}), device=CPU)
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_each_pair_apart(tiny_split, with_model, fill, pairs):
    model = fill(new_model(with_model(head="mlp"), tiny_split().deep, seed=3))
    users = torch.from_numpy(pairs["user_embedding"])
    rng = np.random.default_rng(1)
    item = torch.from_numpy(with_shares(rng.standard_normal((len(pairs["user_of"]), 32)), rng))
    cat, num = torch.ones(len(item), 3, dtype=torch.long), torch.zeros(len(item), 1)
    counts = torch.tensor(COUNTS)
    weights = [block.weight for block in model.head.tower.entry.blocks.values()]
    together = torch.autograd.grad(model.click_logit(users, item, cat, num, counts=counts).sum(), weights)
    apart = torch.autograd.grad(model.click_logit(users.repeat_interleave(counts, 0), item, cat, num).sum(), weights)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
