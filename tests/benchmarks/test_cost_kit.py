import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bahe_tasks.core.llm_split import LlmSplit
from benchmarks.kit.cost_model import Shape, cost_rows
from benchmarks.kit.operations import forward_operations, training_operations
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


def test_lora_leaves_out_the_gradients_of_weights():
    assert training_operations(10.0, lora=True) == 20.0


def test_impressions_of_a_user_share_time_and_history():
    rows = cost_rows(Shape(2, 3, 1), users=2, impressions_per_user=3, num_texts=9)
    assert rows.user_ids.tolist() == ["u0"] * 3 + ["u1"] * 3
    for history in rows.histories.values():
        assert history.starts.tolist() == [0, 0, 0, 3, 3, 3]
        assert (history.ends - history.starts == 3).all()
    assert len(np.unique(rows.shown_at)) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant):
    built = build(variant, Shape(2, 3, 4), llm=LLM, device=CPU, num_samples=8)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    built.step()
    built.step()
    moved = {name for name, p in built.model.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("head.") for name in moved)
    assert any(name.startswith("deep.") and "mlp" in name for name in moved) == (variant != "dedup_only")


def test_peak_memory_sees_what_was_given_back():
    with PeakMemory() as memory:
        for _ in range(5):
            torch.ones(25_000_000).sum()  # 100 MB
    assert 90 < memory.grown_mb < 250
