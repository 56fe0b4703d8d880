import dataclasses

import numpy as np
import pytest

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.model_spec import (
    EncoderMismatchError,
    ModelMismatchError,
    ModelSpec,
    NonFiniteNumberError,
    NumStatistics,
    check_parent,
    hashed_rows,
    normalised_numbers,
    num_statistics,
)

NAN = float("nan")


def test_a_spec_survives_json(tiny_spec):
    assert ModelSpec.from_json(tiny_spec.to_json()) == tiny_spec


def test_growing_adds_names_sorted_and_keeps_the_parents_statistics(tiny_spec):
    child = tiny_spec.grown(
        features=["clicks", "bills"],
        cat_columns=["brand"],
        num_statistics={"price": NumStatistics(99.0, 1.0), "age": NumStatistics(30.0, 5.0)},
    )
    assert child.features == ("bills", "clicks", "visits")
    assert child.cat_columns == ("brand", "genre")
    assert child.num_columns == ("age", "price")
    assert child.num_statistics["price"] == NumStatistics(mean=10.0, std=4.0)


def test_a_feature_or_column_that_vanished_stays_in_force(tiny_spec):
    assert tiny_spec.grown(features=["bills"]) == tiny_spec


def test_statistics_are_those_of_the_present_numbers():
    found = num_statistics({"price": np.array([2.0, NAN, 4.0, 6.0])})
    assert found == {"price": NumStatistics(4.0, pytest.approx((8 / 3) ** 0.5))}  # deviations -2, 0, 2


def test_a_constant_column_has_deviation_one_and_an_empty_one_is_not_in_force():
    found = num_statistics({"constant": np.array([0.1] * 7), "empty": np.array([NAN, NAN])})
    assert list(found) == ["constant"]
    assert found["constant"].std == 1.0


def test_numbers_are_normalised_clipped_and_absent_ones_stay_absent(tiny_spec):
    numbers = normalised_numbers(
        tiny_spec, {"price": np.array([10.0, 18.0, NAN, 1e9]), "other": np.ones(4)}, num_rows=4
    )
    np.testing.assert_array_equal(numbers, np.float32([[0.0], [2.0], [NAN], [10.0]]))
    assert np.isnan(normalised_numbers(tiny_spec, {}, num_rows=2)).all()


def test_an_infinity_is_an_error_that_names_the_column(tiny_spec):
    with pytest.raises(NonFiniteNumberError, match="num_price holds 1"):
        normalised_numbers(tiny_spec, {"price": np.array([np.inf, 1.0])}, num_rows=2)
    with pytest.raises(NonFiniteNumberError, match="num_price"):
        num_statistics({"price": np.array([-np.inf, 1.0])})


def test_hashed_rows_are_the_same_on_every_machine(tiny_spec):
    ids = np.array(["u1", None, "Ünï"], object)
    rows = hashed_rows(tiny_spec, user_ids=ids, item_ids=ids, cat={"genre": ids, "not in force": ids})
    # 1 + binascii.crc32 of b"id:user\0u1", b"id:item\0u1", b"cat:genre\0u1" mod 512
    assert rows[0].tolist() == [402, 91, 285]
    assert rows[1].tolist() == [0, 0, 0]
    assert ((rows[2] >= 1) & (rows[2] <= 512)).all()


def test_a_column_the_log_no_longer_has_is_absent(tiny_spec):
    ids = np.array(["u1", "u2"], object)
    assert hashed_rows(tiny_spec, user_ids=ids, item_ids=ids, cat={})[:, 2].tolist() == [0, 0]


def test_a_parent_of_another_encoder_is_refused(tiny_spec):
    with pytest.raises(EncoderMismatchError, match="enc-a"):
        check_parent(tiny_spec, encoder_version="enc-b", model=tiny_spec.model)


def test_a_parent_of_another_shape_is_refused_and_another_dropout_is_not(tiny_spec):
    check_parent(
        tiny_spec, encoder_version="enc-a", model=dataclasses.replace(tiny_spec.model, dropout=0.5, features=("x",))
    )
    with pytest.raises(ModelMismatchError, match=r"model\.hidden_widths"):
        check_parent(
            tiny_spec, encoder_version="enc-a", model=ModelConfig(hash_buckets=512, cat_width=4, recency_buckets=8)
        )
