import dataclasses
import json

import pytest

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.columns import NumStatistics
from bahe_tasks.core.model_spec import (
    EncoderMismatchError,
    ModelMismatchError,
    ModelSpec,
    check_parent,
)


def test_a_spec_survives_json(tiny_spec):
    assert ModelSpec.from_json(tiny_spec.to_json()) == tiny_spec


@pytest.mark.parametrize("architecture", [None, 1])
def test_a_model_of_an_earlier_version_of_the_code_is_refused_by_name(tiny_spec, architecture):
    document = json.loads(tiny_spec.to_json())
    del document["architecture"]
    document |= {"architecture": architecture} if architecture else {}
    with pytest.raises(ModelMismatchError, match=r"earlier version of the code.*new lineage"):
        ModelSpec.from_json(json.dumps(document))


def test_growing_adds_names_sorted_and_keeps_the_parents_statistics(tiny_spec):
    child = tiny_spec.grown(
        features=["clicks", "bills"],
        cat_columns=["brand"],
        num_statistics={"price": NumStatistics(99.0, 1.0), "age": NumStatistics(30.0, 5.0)},
    )
    assert child.features == ("bills", "clicks", "visits")
    assert child.cat_columns == ("brand", "genre")
    assert child.num_columns == ("age", "price")
    assert child.num_statistics["price"] == NumStatistics(middle=10.0, spread=4.0)


def test_a_feature_or_column_that_vanished_stays_in_force(tiny_spec):
    assert tiny_spec.grown(features=["bills"]) == tiny_spec


def test_a_parent_of_another_encoder_is_refused(tiny_spec):
    with pytest.raises(EncoderMismatchError, match="enc-a"):
        check_parent(tiny_spec, encoder_version="enc-b", model=tiny_spec.model)


def test_a_parent_of_another_shape_is_refused_and_another_dropout_is_not(tiny_spec):
    check_parent(
        tiny_spec,
        encoder_version="enc-a",
        model=dataclasses.replace(tiny_spec.model, dropout=0.5, features=("bills", "visits", "x")),
    )
    with pytest.raises(ModelMismatchError, match=r"model\.hidden_widths"):
        check_parent(
            tiny_spec, encoder_version="enc-a", model=ModelConfig(hash_buckets=512, cat_width=4, recency_buckets=8)
        )


def test_frozen_deep_layers_may_be_trained_from_a_day_on_but_not_with_lora(tiny_spec):
    frozen, lora = (dataclasses.replace(tiny_spec.model, deep_tuning=tuning) for tuning in ("frozen", "lora"))
    check_parent(tiny_spec, encoder_version="enc-a", model=frozen)
    with pytest.raises(ModelMismatchError, match=r"model\.deep_tuning.*new lineage"):
        check_parent(tiny_spec, encoder_version="enc-a", model=lora)


def test_steps_count_over_the_lineage(tiny_spec):
    child = tiny_spec.trained(steps=12).grown(features=["clicks"]).trained(steps=3)
    assert child.trained_steps == 15


def test_the_click_label_comes_first(tiny_spec):
    assert tiny_spec.grown(extra_labels=["paid", "basket"]).labels == ("label", "basket", "paid")


def test_names_are_added_to_a_model_never_taken_away(tiny_spec):
    narrowed = dataclasses.replace(tiny_spec.model, features=("bills", "clicks"))
    with pytest.raises(ModelMismatchError, match=r"model\.features does not name visits"):
        check_parent(tiny_spec, encoder_version="enc-a", model=narrowed)
