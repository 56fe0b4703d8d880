import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bahe_tasks.core.llm_split import LlmSplit
from benchmarks.kit.cost_model import Shape, cost_rows
from benchmarks.kit.operations import deep_forward_operations, forward_operations, training_operations
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.tiny_llms import TINY_LLMS
from benchmarks.kit.variants import VARIANTS, build

LLM = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_operations_are_those_torch_counts(family):
    llm = TINY_LLMS[family](attn_implementation="eager")  # torch counts no attention of sdpa on a CPU
    deep = LlmSplit.of(llm, 1).deep
    hidden, mask = torch.randn(5, 7, 32, requires_grad=True), torch.ones(5, 7, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        deep(hidden, mask).sum().backward()
    counted = training_operations(forward_operations(deep.llm, sequences=5, length=7, causal=False))
    assert counter.get_total_flops() == counted


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "summary", "last"])
def test_operations_of_the_deep_layers_are_those_torch_counts_at_the_pooled_position(family, pooling):
    deep = LlmSplit.of(TINY_LLMS[family](attn_implementation="eager"), 1).deep
    length = 8 if pooling == "summary" else 7
    hidden, mask = torch.randn(5, length, 32, requires_grad=True), torch.ones(5, length, dtype=torch.long)
    last = torch.full((5,), length - 1)
    expected = deep_forward_operations(deep, sequences=5, behaviors=7, pooling=pooling, causal=False)
    with FlopCounterMode(display=False) as counter:
        outputs = deep(hidden, mask).mean(1) if pooling == "mean" else deep.at(last, hidden, mask)
        outputs.sum().backward()
    assert counter.get_total_flops() == training_operations(expected)


def test_lora_leaves_out_the_gradients_of_weights():
    assert training_operations(10.0, lora=True) == 20.0


def test_impressions_of_a_user_share_time_and_history():
    rows = cost_rows(Shape(2, 3, 1), users=2, impressions_per_user=3, num_texts=9)
    assert rows.user_ids.tolist() == ["u0"] * 3 + ["u1"] * 3
    for history in rows.histories.values():
        assert history.starts.tolist() == [0, 0, 0, 3, 3, 3]
        assert (history.ends - history.starts == 3).all()
    assert len(np.unique(rows.shown_at)) == 1


def test_ragged_histories_have_every_length_and_few_padded_positions():
    rows = cost_rows(Shape(2, 4, 1), users=200, impressions_per_user=1, num_texts=9, ragged=True)
    lengths = np.concatenate([history.ends - history.starts for history in rows.histories.values()])
    assert set(lengths) == set(range(1, 8))
    for history in rows.histories.values():
        steps = np.diff(history.occurred_at)
        assert (np.delete(steps, history.ends[:-1] - 1) >= 0).all()  # oldest first within each history
    ragged, even = (
        build(name, Shape(2, 9, 4), llm=LLM, pooling="mean", device=CPU, num_samples=40)
        for name in ("bahe_ragged", "bahe")
    )
    assert 0.5 < ragged.useful_positions < even.useful_positions == 1


@pytest.mark.parametrize("pooling", ["mean", "summary"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant, pooling):
    built = build(variant, Shape(2, 3, 4), llm=LLM, pooling=pooling, device=CPU, num_samples=8)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    built.step()
    built.step()
    moved = {name for name, p in built.model.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("head.") for name in moved)
    assert any(name.startswith("deep.") and "mlp" in name for name in moved) == (variant != "dedup_only")


@pytest.mark.parametrize(("variant", "layers"), [("full_text", 4), ("bahe", 1), ("dedup_only", 0)])
def test_full_text_is_compiled_whole_and_bahe_but_its_last_layer(variant, layers):
    llm = LLM | {"num_hidden_layers": 4}
    built = build(variant, Shape(2, 3, 4), llm=llm, pooling="summary", device=CPU, num_samples=8)
    assert len(built.layers_to_compile) == layers
    calls: list[torch.nn.Module] = []
    for layer in built.layers_to_compile:
        layer.register_forward_pre_hook(lambda layer, _: calls.append(layer))
    built.step()
    assert set(calls) == set(built.layers_to_compile)


def test_peak_memory_sees_what_was_given_back():
    with PeakMemory() as memory:
        for _ in range(5):
            torch.ones(25_000_000).sum()  # 100 MB
    assert 90 < memory.grown_mb < 250
