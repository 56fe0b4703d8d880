import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.config import ModelConfig, TrainingConfig
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.training_rows import row_columns
from benchmarks.kit.cost_model import Shape, cost_rows, cost_spec
from benchmarks.kit.full_text import (
    FullTextCtrModel,
    NotFullTextError,
    TokenSequence,
    TokenSequences,
    TokenTable,
    as_trainable,
    collate_full_text,
)
from benchmarks.kit.tiny_llms import NUM_LAYERS, TINY_LLMS

CPU = torch.device("cpu")
MODEL = ModelConfig(
    hidden_widths=(8,),
    hash_buckets=64,
    cat_width=4,
    recency_buckets=4,
    dropout=0.0,
    text_topics=0,
    text_id_width=0,
    history_extents=False,
)
TOKENS = TokenTable.of([[3, 4, 5], [6], [7, 8], [9, 10, 11, 12], [13, 14]])


def _shape(num_features=2, behaviors=3):
    return Shape(num_features, behaviors_per_feature=behaviors, tokens_per_behavior=2)


def _model(family, shape, **settings):
    llm = TINY_LLMS[family]()
    spec = cost_spec(shape, llm, num_shallow_layers=1, model=dataclasses.replace(MODEL, **settings))
    torch.manual_seed(4)
    model = FullTextCtrModel(spec, llm).eval()
    torch.nn.init.normal_(model.recency.weight, 0, 0.3)
    return model


def _rows(shape, *, users=4):
    return cost_rows(shape, users=users, impressions_per_user=1, num_texts=5, seed=3)


def _batch(model, rows, index, *, features, max_tokens=1000):
    columns = row_columns(rows, model.spec)
    index = np.array(index)
    return collate_full_text(rows, TOKENS, index, columns=columns, features=features, max_tokens=max_tokens, device=CPU)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_history_of_one_behavior_is_what_the_whole_llm_makes_of_its_tokens(family):
    shape = _shape(num_features=1, behaviors=1)
    rows = _rows(shape)
    model = _model(family, shape, behavior_pooling="mean")
    torch.nn.init.zeros_(model.recency.weight)
    batch = _batch(model, rows, [2], features=shape.features)
    tokens = TOKENS.of_texts(rows.histories["feature0"].behavior_rows[2:3])
    assert batch.histories.ids.tolist() == [tokens.tolist()]
    with torch.no_grad():
        whole = model.deep(input_ids=torch.from_numpy(tokens)[None]).last_hidden_state.mean(1)
        torch.testing.assert_close(model.user_embedding(batch.histories), whole)


def test_features_follow_each_other_oldest_first_and_the_newest_behaviors_fit():
    shape = _shape()
    rows = _rows(shape)
    model = _model("llama", shape)
    texts = [rows.histories[f].behavior_rows[3:6] for f in shape.features]
    ids = _batch(model, rows, [1], features=shape.features).histories.ids[0].tolist()
    assert ids == [*TOKENS.of_texts(texts[0]), *TOKENS.of_texts(texts[1])]
    room = int(TOKENS.lengths(texts[0])[1:].sum())
    cut = _batch(model, rows, [1], features=shape.features[:1], max_tokens=room).histories.ids[0].tolist()
    assert cut == TOKENS.of_texts(texts[0][1:]).tolist()


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_behavior_of_one_feature_is_not_that_of_another(family):
    """A title liked or disliked has the same tokens and the same place in the sequence."""
    model = _model(family, _shape())
    torch.nn.init.normal_(model.feature.weight)
    newest, older = (TOKENS.of_texts(np.array([n])) for n in (0, 1))
    ages, nothing = (np.zeros(len(newest)), np.zeros(len(older))), (newest[:0], np.zeros(0))
    both = (
        [(older, ages[1]), (newest, ages[0])],
        [(np.concatenate([older, newest]), np.concatenate(ages[::-1])), nothing],
    )
    sequences = TokenSequences.of([TokenSequence.of_features(parts) for parts in both], CPU)
    assert torch.equal(*sequences.ids)
    with torch.no_grad():
        first, second = model.user_embedding(sequences)
    assert (first - second).abs().max() > 0.01


@pytest.mark.parametrize("pooling", ["mean", "summary"])
@pytest.mark.parametrize("family", ["bert", "llama", "gpt-neox"])
def test_padding_does_not_matter(family, pooling):
    shape = _shape(behaviors=3)
    rows = _rows(shape, users=6)
    rows.histories["feature0"].starts[[1, 4]] += 2
    rows.histories["feature1"].ends[[1, 2]] -= 3  # empty, one of a row with few behaviors
    rows.title_rows[3] = -1
    model = _model(family, shape, behavior_pooling=pooling)
    with torch.no_grad():
        together = model(_batch(model, rows, range(6), features=shape.features))
        apart = [model(_batch(model, rows, [r], features=shape.features)) for r in range(6)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-4, rtol=1e-4)


def test_no_history_at_all_is_a_learned_vector():
    shape = _shape()
    model = _model("llama", shape)
    batch = _batch(model, _rows(shape), [0, 1], features=())
    torch.testing.assert_close(model.user_embedding(batch.histories), model.empty_history.repeat(2, 1))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradients_reach_every_layer_the_tokens_and_the_ages(family):
    shape = _shape()
    model = _model(family, shape)
    optimizers = Optimizers(as_trainable(model), TrainingConfig())
    batch = _batch(model, _rows(shape), range(4), features=shape.features)
    for number in range(2):  # the head's last weights are zero before the first step
        optimizers.zero_grad()
        (model(batch) - 1).square().sum().backward()
        optimizers.step(1.0, number=number)
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.to_dense().any()}
    assert {"recency.weight", "feature.weight"} <= reached
    assert model.deep.get_input_embeddings().weight.grad[3:15].any(1).sum() > 3
    for layer in range(NUM_LAYERS):
        assert any(f"layer.{layer}." in name or f"layers.{layer}." in name for name in reached)
    unreached = {n for n, p in model.deep.named_parameters() if n not in {r.removeprefix("deep.") for r in reached}}
    assert all("pooler" in n or "key.bias" in n for n in unreached), unreached  # a softmax does not see a key's bias


@pytest.mark.parametrize("setting", [{"head": "din"}, {"deep_tuning": "lora"}, {"behavior_pooling": "attention"}])
def test_a_setting_that_full_text_does_not_have_is_refused(setting):
    with pytest.raises(NotFullTextError):
        _model("llama", _shape(), **setting)
