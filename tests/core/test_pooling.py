import math

import pytest
import torch

from bahe_tasks.core.pooling import AttentionPool, pool

PADDED_RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
MASKS = {"right": PADDED_RIGHT, "left": PADDED_RIGHT.flip(1), "of bools": PADDED_RIGHT.bool()}


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained() -> AttentionPool:
    """One whose query is no longer zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        attention = AttentionPool(6)
        torch.nn.init.normal_(attention.query, std=2)
    return attention


def _by_loops(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> list[list[float]]:
    rows = []
    for vectors, present in zip(hidden.tolist(), mask.tolist(), strict=True):
        kept = [vector for vector, here in zip(vectors, present, strict=True) if here]
        mean = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
        rows.append({"mean": mean, "first": kept[0], "last": kept[-1]}[pooling])
    return rows


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_is_what_plain_loops_give(hidden, pooling, mask):
    torch.testing.assert_close(pool(hidden, mask, pooling=pooling), torch.tensor(_by_loops(hidden, mask, pooling)))


def test_pooling_by_hand_reads_only_what_the_mask_holds():
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    by_hand = {"mean": [[2.0], [7.0]], "first": [[1.0], [5.0]], "last": [[3.0], [9.0]]}
    for pooling, expected in by_hand.items():
        assert pool(hidden, mask, pooling=pooling).tolist() == expected


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_pooling_is_the_mean_at_first(hidden, mask):
    torch.testing.assert_close(AttentionPool(6)(hidden, mask), pool(hidden, mask, pooling="mean"))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_pooling_is_what_plain_loops_give(hidden, trained, mask):
    weight, bias, query = (p.tolist() for p in (trained.project.weight, trained.project.bias, trained.query))
    for row, (vectors, present) in enumerate(zip(hidden.tolist(), mask.tolist(), strict=True)):
        kept = [vector for vector, here in zip(vectors, present, strict=True) if here]
        shares = []
        for vector in kept:
            projected = [
                math.tanh(sum(w * x for w, x in zip(weights, vector, strict=True)) + b)
                for weights, b in zip(weight, bias, strict=True)
            ]
            shares.append(math.exp(sum(q * p for q, p in zip(query, projected, strict=True)) / math.sqrt(6)))
        expected = [
            sum(share * x for share, x in zip(shares, column, strict=True)) / sum(shares)
            for column in zip(*kept, strict=True)
        ]
        torch.testing.assert_close(trained(hidden, mask)[row], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_padding_has_no_influence_on_attention_pooling(hidden, trained, mask):
    other = hidden.masked_fill(~mask.bool().unsqueeze(2), 1e4)
    assert torch.equal(trained(other, mask), trained(hidden, mask))
    hidden.requires_grad_()
    trained(hidden, mask).square().sum().backward()
    assert (hidden.grad.abs().amax(2) > 0).equal(mask.bool())


def test_the_first_step_reaches_the_query_and_the_next_all_weights(hidden, trained):
    untrained = AttentionPool(6)
    untrained(hidden, PADDED_RIGHT).square().sum().backward()
    assert untrained.query.grad.abs().min() > 0
    trained(hidden, PADDED_RIGHT).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in trained.parameters())


def test_attention_pooling_keeps_the_type_of_its_input(hidden, trained):
    full = trained(hidden, PADDED_RIGHT)
    rounded = trained.to(torch.bfloat16)(hidden.to(torch.bfloat16), PADDED_RIGHT)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), full, rtol=0.05, atol=0.05)  # bfloat16 keeps 8 bits
