"""The attention of one query gives what attention gives at its position, for little of what that costs."""

from threading import Barrier, Thread

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bahe_tasks.core import last_layer, one_query
from bahe_tasks.core.last_layer import at_position
from bahe_tasks.core.llm_split import DeepLayers, LlmSplit
from bahe_tasks.core.one_query import OneQueryPlan, attending_once
from bahe_tasks.core.one_query_attention import OneQueryState, attend
from benchmarks.kit.tiny_llms import TINY_LLMS, WIDTH

NUM, GROUPS, LENGTH, HEAD = 3, 2, 7, 4  # sequences, heads of keys and values, positions, width of a head
POSITION = torch.tensor([6, 0, 3])


def deep_of(family: str, num_shallow_layers: int = 2) -> DeepLayers:
    """Two of three layers are shallow: one is deep."""
    return LlmSplit.of(TINY_LLMS[family](), num_shallow_layers).deep


def names(found: OneQueryPlan) -> tuple[str | None, str | None, list[str]]:
    def last(path):
        return path and path.rpartition(".")[2]

    return last(found.value), last(found.key), [last(path) for path in found.queries]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", ("value", "key", ["query"])),
        ("llama", ("v_proj", None, ["q_proj"])),  # rotary positions stand between the map and the keys
        ("qwen3", ("v_proj", None, ["q_proj"])),  # a norm too
        ("opt", ("v_proj", "k_proj", ["q_proj"])),
        ("gpt2", (None, None, [])),  # one map makes queries, keys and values
    ],
)
def test_what_is_left_out_follows_from_the_architecture(family, expected):
    assert names(deep_of(family).one_query) == expected


@pytest.mark.parametrize("family", TINY_LLMS)
@pytest.mark.parametrize("num_shallow_layers", [1, 2])
def test_without_padding_and_from_any_position_it_gives_what_attention_gives(family, num_shallow_layers):
    deep = deep_of(family, num_shallow_layers)
    hidden = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mask, position = torch.ones(3, 9, dtype=torch.long), torch.tensor([0, 4, 8])
    direction = torch.linspace(-1, 1, WIDTH)
    got, expected = deep.at(position, hidden, mask), deep(hidden, mask)[torch.arange(3), position]
    of_got, of_expected = (torch.autograd.grad((output * direction).sum(), hidden)[0] for output in (got, expected))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_got, of_expected, rtol=1e-4, atol=1e-5 * max(float(of_expected.abs().max()), 1.0))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_keys_are_not_left_out_because_attention_is_weak_today(family, monkeypatch):
    monkeypatch.setattr(one_query, "_found", {})
    deep = deep_of(family)
    expected = names(deep_of(family).one_query)
    monkeypatch.setattr(one_query, "_found", {})
    attention = deep.llm.layers[-1].self_attn
    weak = attention.q_norm if hasattr(attention, "q_norm") else attention.q_proj
    with torch.no_grad():
        weak.weight.zero_()
    assert names(deep.one_query) == expected


@pytest.mark.parametrize("family", ["mpnet", "gemma2", "gpt-oss", "falcon"])
def test_an_attention_of_another_kind_stays(family):
    deep = deep_of(family)
    assert deep.narrowable
    assert deep.one_query is None


def operations_of_a_position(deep: DeepLayers) -> int:
    def counted(length):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            deep.at(torch.tensor([length - 1]), torch.randn(1, length, WIDTH), torch.ones(1, length, dtype=torch.long))
        return counter.get_total_flops()

    _ = deep.one_query
    return counted(9) - counted(8)


def test_one_more_behavior_costs_an_encoder_two_products_a_head_and_a_decoder_its_key_besides():
    deep = deep_of("bert")
    heads = deep.llm.config.num_attention_heads
    assert operations_of_a_position(deep) == 2 * 2 * heads * WIDTH
    deep = deep_of("llama")
    config = deep.llm.config
    head = config.head_dim
    keys = 2 * WIDTH * head * config.num_key_value_heads
    assert operations_of_a_position(deep) == keys + 2 * config.num_attention_heads * (head + WIDTH)


@pytest.fixture
def states():
    """Queries of two heads to each of keys and values, and the maps that make those of (B, S, H)."""
    torch.manual_seed(0)
    hidden = torch.randn(NUM, LENGTH, WIDTH)
    key, value = (nn.Linear(WIDTH, GROUPS * HEAD) for _ in range(2))
    query = torch.randn(NUM, 2 * GROUPS, LENGTH, HEAD)
    made = [linear(hidden).view(NUM, LENGTH, GROUPS, HEAD).transpose(1, 2) for linear in (key, value)]
    return hidden, key, value, query, made


def random_pairs(*shape: int) -> torch.Tensor:
    pairs = torch.rand(*shape) < 0.6
    pairs[..., 0] = True
    return pairs


MASKS = {
    "none": lambda: None,
    "pairs": lambda: random_pairs(NUM, 1, LENGTH, LENGTH),
    "of keys": lambda: random_pairs(NUM, 1, 1, LENGTH),
    "of the batch": lambda: random_pairs(1, 1, LENGTH, LENGTH),
    "added, by head": lambda: torch.randn(NUM, 2 * GROUPS, LENGTH, LENGTH),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("left_out", ["neither", "value", "key", "both"])
def test_it_is_attention_at_the_position(states, mask, is_causal, left_out):
    hidden, key, value, query, made = states
    module = nn.Module()
    module.num_key_value_groups = 2
    attention_mask = MASKS[mask]()
    given, named = (module, query, *made, attention_mask), {"scaling": 0.7} if left_out == "both" else {}
    module.is_causal = is_causal
    expected, _ = sdpa_attention_forward(*given, **named)
    state = OneQueryState(
        POSITION,
        key if left_out in ("key", "both") else None,
        value if left_out in ("value", "both") else None,
        {key: hidden, value: hidden},
    )
    key_left_out, value_left_out = state.key is not None, state.value is not None
    zeros = [part * (not left) for part, left in zip(made, (key_left_out, value_left_out), strict=True)]
    got, _ = attend(state, module, query, *zeros, attention_mask, **named)
    each = torch.arange(NUM)
    assert got.shape == expected.shape
    torch.testing.assert_close(got[each, POSITION], expected[each, POSITION])


def test_the_caller_may_say_that_attention_is_causal(states):
    _, _, _, query, made = states
    module, state = nn.Module(), OneQueryState(POSITION, None, None, {})
    module.num_key_value_groups, module.is_causal = 2, True
    whole, causal = (attend(state, module, query, *made, None, is_causal=is_causal)[0] for is_causal in (False, True))
    torch.testing.assert_close(causal, attend(state, module, query, *made, None)[0])
    assert not torch.allclose(whole, causal)


def test_a_position_bias_is_refused(states):
    _, _, _, query, made = states
    with pytest.raises(ValueError, match="position bias"):
        attend(OneQueryState(POSITION, None, None, {}), nn.Module(), query, *made, None, position_bias=torch.zeros(1))


def test_dropout_is_of_the_shares_and_reaches_the_bias_of_values(states, monkeypatch):
    hidden, _, value, query, made = states
    kept = torch.rand(NUM, 2 * GROUPS, LENGTH) < 0.5
    monkeypatch.setattr(torch, "dropout", lambda shares, p, train: shares * kept / (1 - p))
    module = nn.Module()
    results = [
        attend(OneQueryState(POSITION, None, linear, {value: hidden}), module, query, *made, None, dropout=0.5)[0]
        for linear in (None, value)
    ]
    torch.testing.assert_close(*results)
    undropped, _ = attend(OneQueryState(POSITION, None, None, {}), module, query, *made, None)
    assert not torch.allclose(results[0], undropped)


def test_a_map_with_an_adapter_beside_it_is_computed():
    deep = deep_of("bert")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["value"]), deep.llm)
    assert names(deep.one_query) == (None, "key", ["query"])


def test_an_adapter_put_beside_a_map_later_is_no_silent_loss():
    deep = deep_of("bert")
    assert deep.one_query
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["value"]), deep.llm)
    with pytest.raises(ValueError, match="what it does beside its weights would be lost"):
        deep.at(POSITION, torch.randn(NUM, LENGTH, WIDTH), torch.ones(NUM, LENGTH, dtype=torch.long))


@pytest.mark.parametrize("family", ["bert", "gpt-oss"])
def test_deep_layers_at_work_are_not_put_to_work_by_another(family):
    deep = deep_of(family)
    given = POSITION, torch.randn(NUM, LENGTH, WIDTH), torch.ones(NUM, LENGTH, dtype=torch.long)
    expected = deep.at(*given)
    entered, seen = Barrier(2), []

    def another():
        entered.wait()
        with pytest.raises(RuntimeError, match="at work already"):
            deep.at(*given)
        seen.append(True)

    with deep._only_at(POSITION):
        thread = Thread(target=another)
        thread.start()
        entered.wait()
        thread.join()
        assert torch.equal(at_position(deep(*given[1:]), POSITION), expected)
    assert seen
    assert torch.equal(deep.at(*given), expected)


@pytest.mark.parametrize("breaks", [False, True])
def test_afterwards_the_llm_is_as_it_was(breaks):
    deep = deep_of("bert")
    found = deep.one_query
    attention = deep.llm.get_submodule(found.attention)
    own = attention.config
    try:
        with attending_once(deep.llm, found, POSITION):
            assert attention.config is not own
            if breaks:
                raise KeyError
    except KeyError:
        pass
    assert attention.config is own
    assert own._attn_implementation == "sdpa"
    assert not one_query._functions
    assert all("forward" not in vars(module) for module in deep.llm.modules())


def test_what_was_found_for_an_alike_llm_is_tried_at_once(monkeypatch):
    monkeypatch.setattr(one_query, "_found", {})
    found = deep_of("bert").one_query
    deep = deep_of("bert")
    assert deep.narrowable
    passes, run = [], last_layer._output_and_gradient
    monkeypatch.setattr(last_layer, "_output_and_gradient", lambda *given: passes.append(1) or run(*given))
    assert deep.one_query == found
    assert len(passes) == 4  # as it is and with all that was found, with padding and without


def test_a_map_that_does_more_than_its_weights_say_is_computed(monkeypatch):
    monkeypatch.setattr(one_query, "_found", {})
    deep = deep_of("bert")
    value = deep.llm.get_submodule(f"{deep.one_query.attention}.value")
    value.register_forward_hook(lambda _module, _inputs, output: output * 2)
    deep._one_query_sought = False
    assert names(deep.one_query) == (None, "key", ["query"])
