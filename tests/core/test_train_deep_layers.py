"""Deep layers computed again for gradients, and compiled: the same model either way."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from tiny_training import CPU, TRAINING
from transformers import LlamaConfig, LlamaModel

from bahe_tasks.core import compiled_layers as compiled_layers_module
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.train import NothingToRecomputeError, train
from bahe_tasks.core.training_step import TrainingDivergedError


@pytest.mark.parametrize("pooling", ["mean", "summary"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_recomputed_hidden_states_give_the_same_model(family, pooling, tiny_split, with_model, tiny_rows, embeddings):
    models, passes = [], []
    for recomputed in (False, True):
        model = new_model(with_model(behavior_pooling=pooling), tiny_split(family).deep, seed=3)
        assert model.deep.one_query  # tried before passes are counted
        linear = next(module for module in model.deep.modules() if isinstance(module, torch.nn.Linear))
        linear.register_forward_hook(partial(lambda at, *_: passes.append(at), int(recomputed)))
        training = dataclasses.replace(TRAINING, gradient_checkpointing=recomputed)
        train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
        models.append(model.state_dict())
    assert passes.count(1) == 2 * passes.count(0)
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor)


def test_nothing_to_recompute_is_refused_by_name(tiny_split, with_model, tiny_rows, embeddings):
    frozen = new_model(with_model(deep_tuning="frozen"), tiny_split().deep, seed=3)
    training = dataclasses.replace(TRAINING, gradient_checkpointing=True)
    with pytest.raises(NothingToRecomputeError, match="BertModel are frozen"):
        train(frozen, tiny_rows, embeddings, training=training, seed=1, device=CPU)


@pytest.fixture
def compiled_calls(monkeypatch):
    """Calls of programs that stand for compiled layers, by program."""
    calls = []

    def backend(graph, _):
        number = len(calls)
        calls.append(0)

        def run(*given):
            calls[number] += 1
            return graph.forward(*given)

        return run

    torch._dynamo.reset()
    monkeypatch.setattr(compiled_layers_module, "BACKEND", backend)
    return calls


@pytest.mark.parametrize(("family", "checkpointing"), [("bert", False), ("llama", False), ("llama", True)])
def test_compiled_layers_train_the_same_model_and_are_left_as_they_were(
    family, checkpointing, tiny_split, with_model, tiny_rows, embeddings, without_dropout, compiled_calls
):
    models = []
    for compiled in (False, True):
        split = tiny_split(family)
        spec = dataclasses.replace(with_model(dropout=0.0), llm_config=split.llm_config)
        model = without_dropout(new_model(spec, split.deep, seed=3))
        training = dataclasses.replace(TRAINING, compile_layers=compiled, gradient_checkpointing=checkpointing)
        train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
        models.append(model)
    assert sum(compiled_calls) >= 6  # every step
    for (name, weight), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(other, weight, msg=lambda m, n=name: f"{n}: {m}")
    assert all(module._compiled_call_impl is None for module in models[1].modules())


def test_every_one_of_many_layers_is_compiled_by_a_handful_of_programs(
    with_model, tiny_rows, embeddings, compiled_calls
):
    settings = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 13}
    llm = LlamaModel(LlamaConfig(**settings, num_attention_heads=4, num_key_value_heads=2))
    split = LlmSplit.of(llm, 1)
    spec = dataclasses.replace(with_model(behavior_pooling="summary"), llm_config=split.llm_config)
    model = new_model(spec, split.deep, seed=3)
    seen = []
    train(
        model,
        tiny_rows,
        embeddings,
        training=dataclasses.replace(TRAINING, compile_layers=True),
        seed=1,
        device=CPU,
        progress=lambda *_: seen.append(sum(compiled_calls)),
    )
    assert min(np.diff(seen)) >= 11  # each layer but the last, in every step
    assert len(compiled_calls) <= 8


def test_compiled_layers_are_left_as_they_were_by_an_error(fresh, tiny_rows, embeddings, compiled_calls):
    model, broken = fresh(), embeddings.copy()
    broken[tiny_rows.title_rows] = np.nan
    training = dataclasses.replace(TRAINING, compile_layers=True)
    with pytest.raises(TrainingDivergedError):
        train(model, tiny_rows, broken, training=training, seed=1, device=CPU)
    assert sum(compiled_calls)
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_nothing_to_compile_is_refused_by_name(tiny_split, with_model, tiny_rows, embeddings):
    split = tiny_split("bert", 2)
    spec = dataclasses.replace(with_model(), num_shallow_layers=2, llm_config=split.llm_config)
    model = new_model(spec, split.deep, seed=3)
    training = dataclasses.replace(TRAINING, compile_layers=True)
    with pytest.raises(compiled_layers_module.NothingToCompileError, match="num_shallow_layers"):
        train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
