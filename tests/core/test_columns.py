import numpy as np
import pytest

from bahe_tasks.core.columns import (
    LabelValueError,
    NonFiniteNumberError,
    NumStatistics,
    hashed_rows,
    label_columns,
    normalised_numbers,
    num_statistics,
    outcome_labels,
    outcome_thresholds,
    with_outcome_labels,
)

NAN = float("nan")
PRICE = {"price": NumStatistics(middle=10.0, spread=4.0)}
NAMES = ("id:user", "id:item", "cat:genre")


def test_the_scale_is_of_the_quartiles_of_the_present_numbers():
    normal = np.random.default_rng(0).normal(5.0, 3.0, size=20_000)
    found = num_statistics({"price": np.r_[normal, NAN]})["price"]
    assert (found.middle, found.spread) == pytest.approx((np.median(normal), normal.std()), rel=0.02)


def test_where_the_quartiles_are_alike_the_scale_is_of_the_numbers_that_differ():
    found = num_statistics({"price": np.array([1.0, *[4.0] * 10, 6.0, NAN] * 4)})
    assert found == {"price": NumStatistics(4.0, 2.5)}


@pytest.mark.parametrize("absurd", [1e6, 1e300])
def test_an_absurd_number_does_not_move_the_scale_of_a_count_that_is_mostly_nothing(absurd):
    counts = np.random.default_rng(0).choice(11, size=2_000, p=[0.8] + [0.02] * 10).astype(float)
    plain, with_absurd = (num_statistics({"clicks": np.r_[counts, last]}) for last in (0.0, absurd))
    numbers = [normalised_numbers(of, {"clicks": np.arange(11.0)}, num_rows=11)[:, 0] for of in (plain, with_absurd)]
    np.testing.assert_allclose(*numbers, rtol=0.2)
    assert numbers[1][10] - numbers[1][1] > 1


def test_an_absurd_number_does_not_move_the_scale():
    numbers = np.random.default_rng(0).normal(size=100)
    scale, with_absurd = (num_statistics({"price": np.r_[numbers, last]})["price"] for last in (3.0, 1e300))
    assert with_absurd == scale


def test_numbers_far_outside_the_scale_of_the_first_day_are_told_apart():
    first_day = num_statistics({"price": np.linspace(10.0, 10.1, 40)})
    numbers = normalised_numbers(first_day, {"price": np.array([-400.0, -5.0, 25.0, 60.0, 700.0])}, num_rows=5)[:, 0]
    assert (np.diff(numbers) > 0.5).all()


def test_a_column_without_a_scale_yet_is_not_in_force():
    columns = {"constant": np.full(40, 0.1), "empty": np.full(40, NAN), "few": np.r_[np.arange(19.0), np.full(21, NAN)]}
    assert num_statistics(columns) == {}
    assert list(num_statistics({"enough": np.arange(20.0)})) == ["enough"]


def test_numbers_too_large_to_have_a_deviation_are_an_error_that_names_the_column():
    with pytest.raises(NonFiniteNumberError, match="num_price holds numbers too large"):
        num_statistics({"price": np.array([1e308, -1e308] * 20)})


def test_numbers_are_normalised_clipped_and_absent_ones_stay_absent():
    numbers = normalised_numbers(PRICE, {"price": np.array([10.0, 18.0, NAN, 1e9]), "other": np.ones(4)}, num_rows=4)
    np.testing.assert_array_equal(numbers, np.float32([[0.0], [np.arcsinh(2.0)], [NAN], [10.0]]))
    assert np.isnan(normalised_numbers(PRICE, {}, num_rows=2)).all()


def test_an_infinity_is_an_error_that_names_the_column():
    with pytest.raises(NonFiniteNumberError, match="num_price holds 1"):
        normalised_numbers(PRICE, {"price": np.array([np.inf, 1.0])}, num_rows=2)
    with pytest.raises(NonFiniteNumberError, match="num_price"):
        num_statistics({"price": np.array([-np.inf, 1.0])})


def test_hashed_rows_are_the_same_on_every_machine():
    ids = np.array(["u1", None, "Ünï"], object)
    rows = hashed_rows(dict.fromkeys([*NAMES, "not in force"], ids), NAMES, num_rows=3, buckets=512)
    # 1 + binascii.crc32 of b"id:user\0u1", b"id:item\0u1", b"cat:genre\0u1" mod 512
    assert rows[0].tolist() == [402, 91, 285]
    assert rows[1].tolist() == [0, 0, 0]
    assert ((rows[2] >= 1) & (rows[2] <= 512)).all()


def test_a_value_has_one_row_wherever_it_stands():
    values = np.array([f"v{n % 7}" if n % 3 else None for n in range(60)], object)
    rows = hashed_rows({"id:user": values}, ("id:user",), num_rows=60, buckets=512)[:, 0]
    apart = [
        hashed_rows({"id:user": values[n : n + 1]}, ("id:user",), num_rows=1, buckets=512)[0, 0] for n in range(60)
    ]
    assert rows.tolist() == apart


def test_a_column_the_log_no_longer_has_is_absent():
    ids = np.array(["u1", "u2"], object)
    assert hashed_rows({"id:user": ids}, NAMES, num_rows=2, buckets=512)[:, 2].tolist() == [0, 0]


def test_labels_stand_beside_the_click_and_one_the_log_lacks_is_absent():
    columns = label_columns(np.float32([1, 0]), {"paid": np.float32([NAN, 1])}, ("basket", "paid"))
    np.testing.assert_array_equal(columns, np.float32([[1, NAN, NAN], [0, NAN, 1]]))


def test_outcomes_are_compared_with_what_parts_the_values_of_the_day():
    values = np.array([*range(1, 11)] * 3 + [np.nan], float)
    assert outcome_thresholds(values) == (3.0, 5.0, 7.0, 9.0)
    assert outcome_thresholds(np.array([2.0] * 25 + [5.0] * 15)) == (5.0,)  # never the least: all reach it
    assert outcome_thresholds(np.array([0.0] * 90 + [3.0, 7.0] * 10)) == (3.0,)  # nearly all are the least
    assert outcome_thresholds(np.array([0.0] * 90 + [3.0, 7.0] * 9)) == ()
    assert outcome_thresholds(np.full(40, 2.0)) == ()
    assert outcome_thresholds(values[:19]) == ()  # too few to keep a scale for good
    assert outcome_thresholds(None) == ()


def test_an_outcome_that_is_not_known_is_an_absent_label():
    found = with_outcome_labels({"paid": np.zeros(3, np.float32)}, np.array([2.0, 7.5, np.nan]), (7.5,))
    assert list(found) == ["paid", *outcome_labels((7.5,))]
    np.testing.assert_array_equal(found["outcome>=7.5"], np.float32([0, 1, np.nan]))
    assert with_outcome_labels({}, None, (7.5,)) == {}


def test_a_label_that_is_neither_zero_nor_one_is_an_error_that_names_it():
    with pytest.raises(LabelValueError, match="label_stars holds 4"):
        label_columns(np.float32([1, 0]), {"stars": np.float32([1, 4])}, ("stars",))
    label_columns(np.float32([1, 0]), {"stars": np.float32([1, 4])}, ())  # not learnt, not looked at
