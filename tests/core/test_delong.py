import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from simulated_rows import simulated, within_binomial_bounds

from bahe_tasks.core.delong import delong_auc_interval, delong_difference
from bahe_tasks.core.intervals import metric_intervals, paired_auc_difference_interval
from bahe_tasks.core.metrics import auc

Z = 1.959963984540054  # the normal distribution's 0.975 quantile
rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 8)), min_size=6, max_size=40).map(
    lambda drawn: tuple(np.array(column) for column in zip(*drawn, strict=True))
)


def wins(labels, scores):
    """Clicks by non-clicks: 1 where the click scores above, one half where they tie. The definition, O(R²)."""
    click, other = scores[labels > 0][:, None], scores[labels == 0][None, :]
    return (click > other) + 0.5 * (click == other)


def variance(won):
    """DeLong's variance, straight from the table of pairs."""
    return won.mean(1).var(ddof=1) / len(won) + won.mean(0).var(ddof=1) / won.shape[1]


def independent(rng, num_rows, *, correlated=0.5):
    """Labels and two scores of about the same quality, rows independent of each other."""
    labels = (rng.random(num_rows) < 0.3).astype(float)
    shared = labels + rng.normal(size=num_rows)
    return labels, shared + correlated * rng.normal(size=num_rows), shared + rng.normal(size=num_rows)


@given(rows)
def test_the_variance_by_midranks_is_that_of_the_table_of_pairs(drawn):
    labels, a, b = drawn
    assume(2 <= labels.sum() <= len(labels) - 2)
    found = delong_auc_interval(labels, a)
    half = Z * variance(wins(labels, a)) ** 0.5
    assert (found.low, found.high) == pytest.approx((max(found.estimate - half, 0), min(found.estimate + half, 1)))
    difference = delong_difference(labels, a, b).interval
    half = Z * variance(wins(labels, a) - wins(labels, b)) ** 0.5
    assert difference.low == pytest.approx(max(auc(labels, a) - auc(labels, b) - half, -1), abs=1e-9)
    assert difference.high == pytest.approx(min(auc(labels, a) - auc(labels, b) + half, 1), abs=1e-9)


def test_delong_by_hand():
    labels, scores = np.array([1, 1, 0, 0.0]), np.array([0.9, 0.4, 0.5, 0.1])
    # Clicks win 1 and 1/2 of the non-clicks, non-clicks lose to 1/2 and 1 of the clicks: var 1/8 over 2, twice.
    found = delong_auc_interval(labels, scores, level=0.5)
    assert found.estimate == 0.75
    assert found.estimate - found.low == pytest.approx(0.6744897501960817 * np.sqrt(1 / 8))
    assert found.high == pytest.approx(0.75 + 0.6744897501960817 * np.sqrt(1 / 8))


def test_the_p_value_is_that_of_the_interval_that_just_touches_zero():
    found = delong_difference(*independent(np.random.default_rng(2), 300))
    touching = delong_difference(*independent(np.random.default_rng(2), 300), level=1 - found.p_value).interval
    assert touching.low * touching.high == pytest.approx(0, abs=1e-9)


def test_too_few_rows_of_a_class_have_no_interval_and_equal_rankings_no_difference():
    scores = np.array([0.1, 0.2, 0.3])
    for labels in (np.ones(3), np.zeros(3), np.array([1, 0, 0.0])):
        assert np.isnan(delong_auc_interval(labels, scores).low)
        assert np.isnan(delong_difference(labels, scores, -scores).p_value)
    assert np.isnan(delong_auc_interval(np.empty(0), np.empty(0)).high)
    labels, a, _ = independent(np.random.default_rng(1), 50)
    same = delong_difference(labels, a, np.exp(a))
    assert (same.interval.estimate, same.interval.low, same.interval.high, same.p_value) == (0, 0, 0, 1)


def test_delong_agrees_with_the_bootstrap_where_every_row_is_its_own_user():
    labels, a, b = independent(np.random.default_rng(3), 2000)
    users = np.arange(len(labels))
    pairs = [
        (delong_auc_interval(labels, a), metric_intervals(labels, a, users, samples=2000, seed=1)["auc"]),
        (
            delong_difference(labels, a, b).interval,
            paired_auc_difference_interval(labels, a, b, users, samples=2000, seed=1),
        ),
    ]
    for delong, drawn in pairs:
        width = delong.high - delong.low
        assert delong.estimate == drawn.estimate
        assert (drawn.low, drawn.high) == pytest.approx((delong.low, delong.high), abs=0.07 * width)


def test_delong_covers_the_truth_as_often_as_it_says_while_rows_are_independent():
    labels, a, b = independent(np.random.default_rng(0), 400_000)
    of_a, difference = auc(labels, a), auc(labels, a) - auc(labels, b)
    held, held_difference, small_p = 0, 0, 0
    for seed in range(1000):
        rng = np.random.default_rng(1000 + seed)
        labels, a, b = independent(rng, 200)
        one, two = delong_auc_interval(labels, a, level=0.9), delong_difference(labels, a, b, level=0.9)
        held += one.low <= of_a <= one.high
        held_difference += two.interval.low <= difference <= two.interval.high
        small_p += delong_difference(*independent(rng, 200, correlated=1.0)).p_value < 0.1
    assert within_binomial_bounds(held, 1000, 0.9), held
    assert within_binomial_bounds(held_difference, 1000, 0.9), held_difference
    assert within_binomial_bounds(small_p, 1000, 0.1), small_p  # two scores of one quality


def test_delong_is_too_narrow_where_users_have_many_rows():
    rows = {"known": 1.0, "rows_per_user": 60}
    labels, scores, *_ = simulated(np.random.default_rng(0), num_users=10_000, **rows)
    truth, held = auc(labels, scores), 0
    for seed in range(250):
        labels, scores, *_ = simulated(np.random.default_rng(1000 + seed), num_users=30, **rows)
        found = delong_auc_interval(labels, scores, level=0.9)
        held += found.low <= truth <= found.high
    assert held < 0.75 * 250, held
