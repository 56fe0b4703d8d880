"""What the first model of a lineage is made of, and what is refused; tiny random LLMs, no tables."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from forty_texts import EMBEDDINGS, TEXTS

from bahe_tasks.config import Config, EncoderConfig, ModelConfig, SequencesConfig
from bahe_tasks.core.encoder import encode_by_whole_llm
from bahe_tasks.core.score import score
from bahe_tasks.core.text_topics import TextTopics
from bahe_tasks.core.training_rows import Histories, ImpressionRows
from bahe_tasks.stages.model_of_day import MissingColumnError, PoolingError, model_to_train
from benchmarks.model_matrix import save_checkpoint


def made(rows, config, parent=None, *, seed=1):
    """Return what `model_to_train` makes of the rows, whose numbers mean EMBEDDINGS and TEXTS."""

    def texts_at(numbers):
        return [TEXTS[n] for n in numbers]

    return model_to_train(rows, EMBEDDINGS, config, parent, texts_at=texts_at, encoder_version="enc-1", seed=seed)


@pytest.fixture
def rows():
    """Forty impressions of one behavior each; one in four is a click, one in two of the rows that say so a purchase."""
    count = 40
    at = np.arange(count)
    return ImpressionRows(
        impression_ids=at.astype(str).astype(object),
        user_ids=at.astype(str).astype(object),
        item_ids=at.astype(str).astype(object),
        shown_at=at,
        as_of=at,
        labels=(at % 4 == 0).astype(np.float32),
        title_rows=at,
        histories={"bills": Histories(at, at - 1, at, at + 1)},
        cat={},
        num={"price": at.astype(np.float64), "year": np.full(count, 2024.0)},
        extra_labels={"paid": np.where(at < 10, at % 2, np.nan).astype(np.float32)},
    )


@pytest.fixture
def config_of(tmp_path):
    """(family, settings of the model) → configuration over a saved tiny LLM."""

    def build(family="llama", **model):
        save_checkpoint(family, TEXTS, tmp_path / family)
        encoder = EncoderConfig(checkpoint=str(tmp_path / family), num_shallow_layers=1)
        return Config(home=tmp_path, encoder=encoder, model=ModelConfig(hash_buckets=64, **model))

    return build


def test_what_is_in_force_is_what_the_rows_have(rows, config_of):
    _, spec = made(rows, config_of())
    assert (spec.features, spec.num_columns, spec.labels) == (("bills",), ("price",), ("label",))


def test_topics_start_from_the_texts_of_the_first_rows_and_are_the_parent_s_from_then_on(rows, config_of):
    read = dataclasses.replace(rows, title_rows=np.minimum(rows.title_rows, 29), histories={})
    config, expected = config_of(text_topics=8), TextTopics(32, 8)
    whole = encode_by_whole_llm(TEXTS[:30], checkpoint_dir=Path(config.encoder.checkpoint), encoder=config.encoder)
    expected.start_from(EMBEDDINGS[:30], whole, seed=1)
    first = made(read, config)
    assert torch.equal(first[0].topics.map.weight, expected.map.weight)
    grown, _ = made(rows, config, first, seed=2)
    assert grown.spec.features == ("bills",)
    assert torch.equal(grown.topics.map.weight, expected.map.weight)
    without, _ = made(rows, config_of(text_topics=0, text_id_width=0))
    assert without.topics is None
    assert without.parts.of_item == 32


def test_every_label_starts_at_its_own_rate(rows, config_of):
    model, _ = made(rows, config_of(extra_labels=("paid",)))
    predicted = score(model, rows, EMBEDDINGS, batch_size=40, device=torch.device("cpu"))
    assert predicted == pytest.approx(11 / 42)  # 10 of 40, and 1 of 2 beforehand, though of no row a thing is counted
    assert model.head.outputs["label:paid"].bias.item() == pytest.approx(0.0)  # 5 of 10


def test_outcomes_are_learnt_from_the_first_day_that_has_enough_and_keep_its_thresholds(rows, config_of):
    values = np.where(np.arange(40) < 30, np.arange(40) % 5, np.nan)
    early = made(rows, config_of())
    with_values = dataclasses.replace(rows, outcome_values=values)
    model, spec = made(with_values, config_of(), early)
    names = ("outcome>=1.0", "outcome>=2.0", "outcome>=3.0", "outcome>=4.0")
    assert (early[1].labels, spec.labels) == (("label",), ("label", *names))
    assert model.head.outputs["label:outcome>=3%2E0"].bias.item() == pytest.approx(np.log(2 / 3))  # 12 of 30
    larger = dataclasses.replace(rows, outcome_values=10 * values)
    assert made(larger, config_of(), (model, spec))[1].labels == spec.labels


def test_outcomes_that_weigh_nothing_are_not_learnt(rows, config_of):
    config = config_of()
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, outcome_weight=0.0))
    rows = dataclasses.replace(rows, outcome_values=np.arange(40.0))
    assert made(rows, config)[1].labels == ("label",)


def test_a_constant_column_that_is_configured_is_waited_for(rows, config_of):
    _, spec = made(rows, config_of(num_columns=("year",)))
    assert spec.num_columns == ()


def test_the_first_output_of_causal_layers_is_not_pooled(rows, config_of):
    with pytest.raises(PoolingError, match="attend causally"):
        made(rows, config_of("llama", behavior_pooling="first"))
    made(rows, config_of("bert", behavior_pooling="first"))
    both_ways = config_of("llama", behavior_pooling="first", deep_attention="bidirectional")
    made(rows, both_ways)


def test_a_limit_of_a_feature_that_neither_rows_nor_parent_have_is_named(rows, config_of, caplog):
    def told(rows, parent=None):
        caplog.clear()
        made(rows, config, parent)
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    limits = SequencesConfig(max_behaviors_by_feature={"bills": 4, "bils": 4})
    config = dataclasses.replace(config_of(), sequences=limits)
    [message] = told(rows)
    assert "max_behaviors_by_feature names bils, which no training row has a history of; the log has bills" in message
    parent = made(dataclasses.replace(rows, histories={"bils": rows.histories["bills"]}), config_of())
    assert told(rows, parent) == []
    [message] = told(dataclasses.replace(rows, histories={}), parent)
    assert "names bills, which" in message


def test_din_without_a_text_feature_is_refused(rows, config_of):
    without = dataclasses.replace(rows, histories={})
    with pytest.raises(MissingColumnError, match="din attends to behaviors"):
        made(without, config_of(head="din"))


def test_an_llm_that_cannot_be_run_without_layers_has_topics_too(rows, config_of):
    model, _ = made(rows, config_of("deberta-v3", text_topics=4))
    assert model.topics.map.weight.abs().max() > 1
