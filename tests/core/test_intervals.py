import time

import numpy as np
import pytest
from simulated_rows import simulated, within_binomial_bounds
from sklearn.metrics import roc_auc_score

from bahe_tasks.core.intervals import (
    average_intervals,
    calibration_interval,
    logloss_excess_interval,
    metric_intervals,
    paired_auc_difference_interval,
)
from bahe_tasks.core.metrics import METRICS, auc, evaluate, expected_calibration_error

ECE = "expected_calibration_error"
DRAWS = 250


def rows_of_draws(users, *, samples, seed):
    """Rows of each resample, really repeated, with a user's second appearance a user of its own."""
    distinct = np.unique(users)
    for draw in np.random.default_rng(seed).integers(len(distinct), size=(samples, len(distinct))):
        rows = [np.flatnonzero(users == distinct[u]) for u in draw]
        yield np.concatenate(rows), np.repeat(np.arange(len(draw)), [len(mine) for mine in rows])


def test_a_resampled_metric_is_the_metric_of_the_rows_of_the_users_drawn(log):
    labels, scores, users = log
    found = metric_intervals(labels, scores, users, samples=25, seed=4, level=0.9)
    values = [evaluate(labels[rows], scores[rows], drawn) for rows, drawn in rows_of_draws(users, samples=25, seed=4)]
    for name in set(METRICS) - {ECE}:
        expected = np.quantile([of_draw[name] for of_draw in values], [0.05, 0.95], method="inverted_cdf")
        assert (found[name].low, found[name].high) == pytest.approx(tuple(expected)), name
        assert found[name].estimate == pytest.approx(evaluate(labels, scores, users)[name])


def test_a_paired_resample_is_auc_over_the_rows_of_the_users_drawn(log):
    labels, scores, users = log
    other = 1 - scores**2
    interval = paired_auc_difference_interval(labels, scores, other, users, samples=25, seed=4, level=0.9)
    differences = [
        roc_auc_score(labels[rows], scores[rows]) - roc_auc_score(labels[rows], other[rows])
        for rows, _ in rows_of_draws(users, samples=25, seed=4)
    ]
    expected = np.quantile(differences, [0.05, 0.95], method="inverted_cdf")
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert interval.estimate == pytest.approx(roc_auc_score(labels, scores) - roc_auc_score(labels, other))


def test_an_average_over_days_draws_the_same_users_on_all_of_them(log):
    labels, scores, users = log
    days = np.arange(len(labels)) % 3
    found = average_intervals(labels, scores, users, days, samples=25, seed=4, level=0.9)
    means = {name: [] for name in ("auc", "logloss", "calibration")}
    for rows, drawn in rows_of_draws(users, samples=25, seed=4):
        masks = [days[rows] == day for day in range(3)]
        of_days = [evaluate(labels[rows][mask], scores[rows][mask], drawn[mask]) for mask in masks]
        for name in means:
            means[name].append(np.mean([of_day[name] for of_day in of_days]))
    for name, values in means.items():
        expected = np.quantile(values, [0.05, 0.95], method="inverted_cdf")
        assert (found[name].low, found[name].high) == pytest.approx(tuple(expected)), name


def test_a_day_without_a_metric_has_no_vote_in_its_average():
    labels, users = np.array([1, 0, 1, 1.0]), np.array([1, 2, 1, 2])
    scores, days = np.array([0.9, 0.1, 0.2, 0.8]), np.array([1, 1, 2, 2])
    found = average_intervals(labels, scores, users, days, samples=20, seed=1)
    assert found["auc"].estimate == 1.0
    assert found["calibration"].estimate == pytest.approx((1 + 0.5) / 2)


def test_what_the_gate_asks_gives_the_numbers_it_always_gave(log):
    """Numbers of the first version of these functions (7ed9b8a), which multiplied out a weight per row."""
    labels, scores, users = log
    excess = logloss_excess_interval(labels, scores, users, samples=300, seed=4)
    ratio = calibration_interval(labels, scores, users, samples=300, seed=4)
    paired = paired_auc_difference_interval(labels, scores, 1 - scores**2, users, samples=300, seed=4)
    assert (paired.estimate, paired.low, paired.high) == (0.6591567789146691, 0.5795537190082645, 0.7402270685289554)
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx(
        (0.9659143968871595, 0.8882291666666666, 1.0399206349206351), rel=1e-12
    )
    assert (excess.estimate, excess.low, excess.high) == pytest.approx(
        (-0.1830988714362255, -0.23233411370598833, -0.13673154200921533), rel=1e-12
    )


def test_equal_scores_differ_by_nothing_and_a_seed_gives_one_interval(log):
    labels, scores, users = log
    same = paired_auc_difference_interval(labels, scores, scores, users, seed=1)
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)
    one, two = (metric_intervals(labels, scores, users, seed=8) for _ in range(2))
    assert one == two


def test_no_rows_one_class_and_one_user():
    none = np.empty(0)
    assert all(np.isnan(i.low) for i in metric_intervals(none, none, np.empty(0, object), seed=1).values())
    assert np.isnan(calibration_interval(none, none, np.empty(0, object), seed=1).low)
    assert np.isnan(logloss_excess_interval(none, none, np.empty(0, object), seed=1).low)
    ones, scores, users = np.ones(3), np.array([0.1, 0.2, 0.3]), np.array(["u", "v", "w"], object)
    assert np.isnan(paired_auc_difference_interval(ones, scores, scores, users, seed=1).high)
    found = metric_intervals(ones, scores, users, seed=1)
    assert {name for name in METRICS if np.isnan(found[name].low)} == {
        "auc", "gauc", "mean_user_auc", "normalised_entropy",
    }  # fmt: skip
    alone = metric_intervals(
        np.array([1, 0, 1.0]), scores, np.zeros(3), seed=1
    )  # every resample would be the same user
    assert all(np.isnan([i.low, i.high]).all() for i in alone.values())
    assert alone["auc"].estimate == 0.5


def test_calibration_is_open_above_where_clicks_are_too_few():
    labels = np.zeros(300)
    labels[7] = 1
    assert calibration_interval(labels, np.full(300, 0.01), np.arange(300), seed=1).high == np.inf
    assert metric_intervals(labels, np.full(300, 0.01), np.arange(300), seed=1)["calibration"].high == np.inf


def coverage(find, truth, **rows):
    """Share of DRAWS simulated logs whose interval holds the truth, by metric."""
    held = dict.fromkeys(truth, 0)
    for seed in range(DRAWS):
        labels, scores, users, _ = simulated(np.random.default_rng(1000 + seed), **rows)
        for name, interval in find(labels, scores, users, seed).items():
            held[name] += interval.low <= truth[name] <= interval.high
    return held


def population(**rows):
    """Metrics of 60,000 simulated users; the calibration error against the true probabilities."""
    labels, scores, users, truth = simulated(np.random.default_rng(0), num_users=60_000, **rows)
    return evaluate(labels, scores, users) | {ECE: expected_calibration_error(truth, scores)}


def by_user(labels, scores, users, seed):
    return metric_intervals(labels, scores, users, samples=200, seed=seed, level=0.9)


def by_row(labels, scores, users, seed):
    return metric_intervals(labels, scores, np.arange(len(users)), samples=200, seed=seed, level=0.9)


@pytest.mark.parametrize("model", [{"known": 1.0}, {"known": 0.3}, {"known": 0.3, "shift": 1.0}])
def test_every_interval_covers_the_truth_as_often_as_it_says(model):
    held = coverage(by_user, population(**model), num_users=200, **model)
    for name in set(METRICS) - {ECE}:
        assert within_binomial_bounds(held[name], DRAWS, 0.9), (name, held[name])


@pytest.mark.parametrize(("model", "exact"), [({"known": 1.0}, False), ({"shift": 0.3}, False), ({"shift": 2.0}, True)])
def test_the_calibration_error_is_covered_at_least_as_often_as_said_and_just_so_when_far_off(model, exact):
    """A percentile interval of the resampled error itself would cover a perfect model's 0 in no draw at all."""
    held = coverage(by_user, population(**model), num_users=200, **model)[ECE]
    assert within_binomial_bounds(held, DRAWS, 0.9) or (held > 0.9 * DRAWS and not exact), held


def test_resampling_rows_would_claim_too_much_where_users_differ():
    model = {"known": 0.0, "rows_per_user": 20}
    truth = population(**model)
    honest, narrow = (coverage(find, truth, num_users=60, **model)["calibration"] for find in (by_user, by_row))
    assert within_binomial_bounds(honest, DRAWS, 0.9), honest
    assert narrow < 0.7 * DRAWS, narrow


def test_the_average_over_days_covers_the_truth_as_often_as_it_says():
    def find(labels, scores, users, seed):
        days = np.random.default_rng(seed).integers(3, size=len(labels))
        return average_intervals(labels, scores, users, days, samples=200, seed=seed, level=0.9)

    held = coverage(find, population(), num_users=200)
    for name in ("auc", "logloss"):  # the others' mean over a third of the rows is not that of all rows
        assert within_binomial_bounds(held[name], DRAWS, 0.9), (name, held[name])


def test_the_paired_interval_covers_the_true_difference_as_often_as_it_says():
    def pair(rng, num_users):
        labels, scores, users, truth = simulated(rng, num_users=num_users)
        return labels, scores, truth * np.exp(0.5 * rng.normal(size=len(users))), users

    labels, a, b, _ = pair(np.random.default_rng(0), 60_000)
    truth, covered = auc(labels, a) - auc(labels, b), 0
    for seed in range(DRAWS):
        labels, a, b, users = pair(np.random.default_rng(1000 + seed), 120)
        interval = paired_auc_difference_interval(labels, a, b, users, samples=200, seed=seed, level=0.9)
        covered += interval.low <= truth <= interval.high
    assert within_binomial_bounds(covered, DRAWS, 0.9), covered


def test_a_thousand_resamples_of_twenty_thousand_rows_are_quick():
    labels, scores, users, _ = simulated(np.random.default_rng(5), num_users=3_400)
    start = time.process_time()
    metric_intervals(labels, scores, users, samples=1000, seed=1)
    assert time.process_time() - start < 3.0
