import copy

import pytest
import torch
from transformers import AlbertConfig, AlbertModel, GPT2Config, GPT2Model, T5Config, T5Model

from bahe_tasks.core.llm_split import LayerCountError, LlmSplit, UnsplittableArchitectureError, empty_deep_layers

PADDED_RIGHT = [[1] * 7, [1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
PADDED_LEFT = [row[::-1] for row in PADDED_RIGHT]


@pytest.mark.parametrize("num_shallow_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("mask", [PADDED_RIGHT, PADDED_LEFT], ids=["padded right", "padded left"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_deep_of_shallow_equals_the_whole_llm_padding_included(tiny_llm, family, mask, num_shallow_layers):
    llm = tiny_llm(family)
    split = LlmSplit.of(copy.deepcopy(llm), num_shallow_layers)
    input_ids = torch.randint(0, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor(mask)
    with torch.inference_mode():
        whole = llm(input_ids=input_ids, attention_mask=mask).last_hidden_state
        halves = split.deep(split.shallow(input_ids, mask), mask)
    assert whole.isfinite().all()
    torch.testing.assert_close(halves, whole)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_each_half_holds_only_its_own_layers(tiny_llm, family):
    layer = sum(p.numel() for name, p in tiny_llm(family).named_parameters() if ".0." in name)
    shallow_none, deep_all = (sum(p.numel() for p in half.parameters()) for half in _halves(tiny_llm(family), 0))
    shallow_one, deep_two = (sum(p.numel() for p in half.parameters()) for half in _halves(tiny_llm(family), 1))
    assert shallow_one - shallow_none == layer
    assert deep_all - deep_two == layer


def _halves(llm, num_shallow_layers):
    split = LlmSplit.of(llm, num_shallow_layers)
    return split.shallow, split.deep


def test_shallow_layers_get_no_gradient(tiny_split):
    split = tiny_split()
    input_ids, mask = torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long)
    split.deep(split.shallow(input_ids, mask), mask).square().mean().backward()
    assert all(p.grad is None for p in split.shallow.parameters())
    assert all(p.grad is not None for p in split.deep.parameters())


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_deep_layers_rebuilt_from_configuration_and_weights_are_the_same(tiny_split, family):
    split = tiny_split(family)
    rebuilt = empty_deep_layers(split.llm_config, 1)
    rebuilt.load_state_dict(split.deep.state_dict())
    hidden, mask = torch.randn(2, 5, 32), torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(hidden, mask), split.deep(hidden, mask))


def test_bert_deep_layers_add_no_position_to_a_behavior(tiny_split):
    deep = tiny_split("bert").deep
    hidden, mask = torch.randn(1, 4, 32), torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode():
        forward, backward = deep(hidden, mask), deep(hidden.flip(1), mask)
    torch.testing.assert_close(forward, backward.flip(1))


def test_llama_deep_layers_know_the_order_of_behaviors(tiny_split):
    deep = tiny_split("llama").deep
    hidden, mask = torch.randn(1, 4, 32), torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode():
        assert not torch.allclose(deep(hidden, mask), deep(hidden.flip(1), mask).flip(1), atol=1e-3)


@pytest.mark.parametrize(
    "llm",
    [
        lambda: GPT2Model(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4)),
        lambda: T5Model(T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)),
        lambda: AlbertModel(AlbertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, embedding_size=32, intermediate_size=32)),
    ],
    ids=["GPT2Model", "T5Model", "AlbertModel"],
)  # fmt: skip
def test_an_architecture_that_cannot_be_cut_is_refused_by_name(llm, request):
    with pytest.raises(UnsplittableArchitectureError, match=request.node.callspec.id):
        LlmSplit.of(llm().eval(), 1)


def test_more_shallow_layers_than_the_llm_has_is_refused(tiny_llm):
    with pytest.raises(LayerCountError, match="between 0 and 3"):
        LlmSplit.of(tiny_llm("bert"), 4)
