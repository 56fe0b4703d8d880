"""The last layer computed at one position gives there what the whole layer gives, and the same gradients."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from bahe_tasks.core import last_layer
from bahe_tasks.core.llm_split import DeepLayers, LlmSplit
from bahe_tasks.core.lora import add_lora, merge_lora
from benchmarks.kit.tiny_llms import TINY_LLMS, WIDTH

PADDED_RIGHT = torch.tensor([[1] * 9, [1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
MASKS = {"right": PADDED_RIGHT, "left": PADDED_RIGHT.flip(1)}
LAST = {"right": torch.tensor([8, 4, 0]), "left": torch.tensor([8, 8, 8])}
FIRST = {"right": torch.tensor([0, 0, 0]), "left": torch.tensor([0, 4, 8])}


def deep_of(family: str) -> DeepLayers:
    return LlmSplit.of(TINY_LLMS[family](), 1).deep


def whole(deep: DeepLayers) -> DeepLayers:
    deep._narrowable = ()
    return deep


def behaviors() -> torch.Tensor:
    return torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(2))


def output_and_gradients(deep, position, mask):
    deep.zero_grad()
    hidden = behaviors().requires_grad_()
    output = deep.at(position, hidden, mask)
    (output * torch.linspace(-1, 1, WIDTH)).sum().backward()
    gradients = {name: p.grad for name, p in deep.named_parameters() if p.grad is not None}
    return {"output": output.detach(), "input": hidden.grad, **gradients}


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    atol = 1e-5 * max(float(value.abs().max()) for value in expected.values())  # float32, grown through the layers
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("family", TINY_LLMS)
def test_output_and_gradients_are_those_of_the_whole_layer_padding_included(family):
    for side, mask in MASKS.items():
        for position in (LAST[side], FIRST[side]):
            deep = deep_of(family)
            assert deep.narrowable
            got = output_and_gradients(deep, position, mask)
            assert_equal(got, output_and_gradients(whole(deep), position, mask))


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "gpt-neox", "modernbert"])
def test_what_follows_attention_sees_one_position_and_keys_and_values_see_all(family):
    deep = deep_of(family)
    deep._one_query_sought = True  # attention as ever
    seen = {"narrow": set(), "whole": set()}
    for path, module in deep.llm.named_modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            kind = "narrow" if path in deep.narrowable else "whole"
            module.register_forward_hook(lambda _m, _i, output, k=kind: seen[k].add(output.shape[1]))
    deep.at(LAST["right"], behaviors(), PADDED_RIGHT)
    assert seen == {"narrow": {1}, "whole": {9}}


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_adapters_are_narrowed_with_what_they_stand_beside(family):
    plain, deep = deep_of(family), deep_of(family)
    add_lora(deep, rank=2, alpha=4.0, dropout=0.0)
    assert deep.narrowable == plain.narrowable
    for name, parameter in deep.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(4))
    adapted = output_and_gradients(deep, LAST["right"], PADDED_RIGHT)
    narrowable = deep.narrowable
    assert_equal(adapted, output_and_gradients(whole(deep), LAST["right"], PADDED_RIGHT))
    deep._narrowable = narrowable
    merge_lora(deep)
    with torch.inference_mode():
        merged = deep.at(LAST["right"], behaviors(), PADDED_RIGHT)
    torch.testing.assert_close(merged, adapted["output"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_layers_computed_again_for_gradients_are_narrowed_as_before(family):
    deep = deep_of(family)
    expected = output_and_gradients(deep, LAST["right"], PADDED_RIGHT)
    for module in deep.modules():
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, GradientCheckpointingLayer):
            module._gradient_checkpointing_func = partial(
                checkpoint, use_reentrant=False, context_fn=deep.contexts_of_checkpoint
            )
            module.gradient_checkpointing = True
    assert_equal(output_and_gradients(deep.train(), LAST["right"], PADDED_RIGHT), expected)


def test_a_map_before_positions_are_mixed_again_stays_whole():
    class Mixing(nn.Module):
        def forward(self, hidden):
            return hidden.cumsum(1)

    deep = deep_of("llama")
    mlp = deep.llm.layers[-1].mlp
    mlp.down_proj = nn.Sequential(mlp.down_proj, Mixing(), nn.Linear(WIDTH, WIDTH, bias=False))
    assert deep.narrowable == ("layers.1.mlp.down_proj.2", "norm")
    got = output_and_gradients(deep, LAST["right"], PADDED_RIGHT)
    assert_equal(got, output_and_gradients(whole(deep), LAST["right"], PADDED_RIGHT))


@pytest.fixture
def tried(monkeypatch):
    """Nothing found yet in this process; one entry for each pass of what is tried from now on."""
    monkeypatch.setattr(last_layer, "_found", {})
    passes = []
    run = last_layer._output_and_gradient
    monkeypatch.setattr(last_layer, "_output_and_gradient", lambda *args: passes.append(1) or run(*args))
    return passes


def test_what_was_found_for_an_alike_llm_is_tried_at_once(tried):
    found = deep_of("bert").narrowable
    assert len(tried) > len(found)
    tried.clear()
    assert deep_of("bert").narrowable == found
    assert len(tried) == 2


def test_what_weights_of_zero_allow_is_not_taken_for_others(tried):
    class Mixing(nn.Linear):
        def forward(self, hidden):
            return hidden + super().forward(hidden).cumsum(1)

    def mixing(weight):
        deep = deep_of("llama")
        mlp = deep.llm.layers[-1].mlp
        mlp.down_proj = nn.Sequential(mlp.down_proj, Mixing(WIDTH, WIDTH, bias=False))
        nn.init.constant_(mlp.down_proj[1].weight, weight)
        return deep

    assert "layers.1.mlp.down_proj.1" in mixing(0.0).narrowable
    assert mixing(1.0).narrowable == ("norm",)


def test_what_is_found_of_weights_that_are_no_numbers_is_not_kept(tried):
    broken = deep_of("llama")
    with torch.no_grad():
        next(broken.llm.layers[-1].parameters()).fill_(float("nan"))
    assert broken.narrowable == ()
    assert deep_of("llama").narrowable


def test_without_layers_there_is_nothing_to_narrow():
    deep = LlmSplit.of(TINY_LLMS["llama"](), 3).deep
    assert deep.narrowable == ()
    hidden = behaviors()
    torch.testing.assert_close(deep.at(LAST["right"], hidden, PADDED_RIGHT)[2], deep(hidden, PADDED_RIGHT)[2, 0])


def test_what_is_tried_leaves_the_generator_and_the_mode_as_they_were():
    deep = deep_of("bert").train()
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert deep.narrowable
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in deep.llm.modules())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError, MemoryError])
def test_what_the_machine_lacks_says_nothing_of_a_module(error):
    def breaks(_module, _inputs):
        raise error("of the machine")

    deep = deep_of("bert")
    with last_layer.on_trial(deep.llm, deep) as trial:
        hook = deep.layers[-1].register_forward_pre_hook(breaks)
        with pytest.raises(error, match="of the machine"):
            trial.agrees()
        hook.remove()
        assert trial.agrees()


def test_what_a_failed_trial_raised_is_logged(caplog):
    def breaks(_module, _inputs):
        raise IndexError("one position is too few")

    deep = deep_of("bert")
    with last_layer.on_trial(deep.llm, deep) as trial, caplog.at_level("DEBUG", last_layer.__name__):
        deep.layers[-1].register_forward_pre_hook(breaks)
        assert not trial.agrees()
    [message] = caplog.messages
    assert message.endswith("failed: IndexError: one position is too few")
