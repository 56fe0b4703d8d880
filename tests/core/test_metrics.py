import time

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from bahe_tasks.core.metrics import (
    auc,
    calibration,
    calibration_interval,
    gauc,
    logloss,
    paired_auc_difference_interval,
)


@pytest.fixture
def log():
    """Labels, scores with many ties, users."""
    rng = np.random.default_rng(3)
    scores = np.round(rng.random(500), 2)
    return (
        (rng.random(500) < scores).astype(np.float32),
        scores,
        np.array([f"u{u}" for u in rng.integers(60, size=500)], object),
    )


def test_auc_and_logloss_equal_scikit_learn(log):
    labels, scores, _ = log
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    inside = np.clip(scores, 1e-7, 1 - 1e-7)
    assert logloss(labels, scores) == pytest.approx(log_loss(labels, inside))


def test_auc_by_hand():
    labels, scores = np.array([1, 0, 1, 0.0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert auc(labels, scores) == pytest.approx(3.5 / 4)  # pairs won: 1, 1, one half (a tie), 1


def test_gauc_by_hand():
    users = np.array(["a", "b", "a", "c", "b", "a", "b", "b"], object)
    labels = np.array([1, 1, 0, 1, 0, 0, 0, 1.0])
    scores = np.array([0.5, 0.05, 0.5, 0.9, 0.4, 0.1, 0.1, 0.7])
    # a: 3 rows, pairs won 0.5 and 1 of 2 = 0.75.  b: 4 rows, pairs won 0, 0, 1, 1 of 4 = 0.5.  c: one class, left out.
    assert gauc(labels, scores, users) == pytest.approx((3 * 0.75 + 4 * 0.5) / 7)


def test_gauc_weighs_users_by_impressions(log):
    labels, scores, users = log
    weighted, weight = 0.0, 0
    for user in set(users):
        mine = users == user
        if 0 < labels[mine].sum() < mine.sum():
            weighted += mine.sum() * roc_auc_score(labels[mine], scores[mine])
            weight += mine.sum()
    assert gauc(labels, scores, users) == pytest.approx(weighted / weight)


def test_calibration_is_predicted_over_observed():
    assert calibration(np.array([1, 0, 1, 0]), np.array([0.9, 0.3, 0.6, 0.6])) == pytest.approx(1.2)
    assert calibration(np.zeros(2), np.array([0.1, 0.2])) == np.inf


def test_one_class_and_no_rows_are_not_a_number():
    none = np.empty(0)
    for labels, scores in ((np.ones(3), np.array([0.1, 0.2, 0.3])), (none, none)):
        users = np.array(["u"] * len(labels), object)
        assert np.isnan(auc(labels, scores))
        assert np.isnan(gauc(labels, scores, users))
        assert np.isnan(paired_auc_difference_interval(labels, scores, scores, users, seed=1).high)
    assert np.isnan(logloss(none, none))
    assert np.isnan(calibration(none, none))
    assert np.isnan(calibration_interval(none, none, np.empty(0, object), seed=1).low)


def test_logloss_of_a_sure_mistake_is_finite():
    assert logloss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_a_paired_resample_is_auc_over_the_rows_of_the_users_drawn(log):
    """The weighted form against rows really repeated, with the generator the function documents."""
    labels, scores, users = log
    other = 1 - scores**2
    interval = paired_auc_difference_interval(labels, scores, other, users, samples=25, seed=4, level=0.9)
    distinct = np.unique(users)
    drawn = np.random.default_rng(4).integers(len(distinct), size=(25, len(distinct)))
    differences = []
    for draw in drawn:
        rows = np.concatenate([np.flatnonzero(users == distinct[u]) for u in draw])
        differences.append(roc_auc_score(labels[rows], scores[rows]) - roc_auc_score(labels[rows], other[rows]))
    expected = np.quantile(differences, [0.05, 0.95], method="inverted_cdf")
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert interval.estimate == pytest.approx(roc_auc_score(labels, scores) - roc_auc_score(labels, other))


def test_equal_scores_differ_by_nothing_and_a_seed_gives_one_interval(log):
    labels, scores, users = log
    same = paired_auc_difference_interval(labels, scores, scores, users, seed=1)
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)
    one, two = (calibration_interval(labels, scores, users, seed=8) for _ in range(2))
    assert one == two


def simulated(rng, *, num_users=80, rows_per_user=6):
    """Rows of one user share a shift in both label and scores, so rows are not independent."""
    users = np.repeat(np.arange(num_users), rows_per_user)
    taste = np.repeat(rng.normal(size=num_users), rows_per_user) + rng.normal(size=len(users))
    labels = (rng.random(len(users)) < 1 / (1 + np.exp(-taste))).astype(float)
    return labels, taste + 0.5 * rng.normal(size=len(users)), taste + rng.normal(size=len(users)), users, taste


def test_the_paired_interval_covers_the_true_difference_as_often_as_it_says():
    labels, a, b, *_ = simulated(np.random.default_rng(0), num_users=60_000)
    truth = auc(labels, a) - auc(labels, b)
    covered = 0
    for seed in range(150):
        labels, a, b, users, _ = simulated(np.random.default_rng(1000 + seed))
        interval = paired_auc_difference_interval(labels, a, b, users, samples=200, seed=seed, level=0.9)
        covered += interval.low <= truth <= interval.high
    assert 0.82 <= covered / 150 <= 0.97  # 0.9 ± 3 standard errors of 150 draws, a little wider below


def test_the_calibration_interval_covers_one_where_probabilities_are_true():
    covered = 0
    for seed in range(150):
        labels, _, _, users, taste = simulated(np.random.default_rng(2000 + seed))
        interval = calibration_interval(labels, 1 / (1 + np.exp(-taste)), users, samples=200, seed=seed, level=0.9)
        covered += interval.low <= 1 <= interval.high
    assert 0.82 <= covered / 150 <= 0.97


def test_the_calibration_interval_is_open_above_where_clicks_are_too_few():
    labels = np.zeros(300)
    labels[7] = 1
    assert calibration_interval(labels, np.full(300, 0.01), np.arange(300), seed=1).high == np.inf


def test_a_thousand_resamples_of_two_thousand_rows_are_quick():
    labels, a, b, users, _ = simulated(np.random.default_rng(5), num_users=500, rows_per_user=4)
    start = time.process_time()
    paired_auc_difference_interval(labels, a, b, users, samples=1000, seed=1)
    assert time.process_time() - start < 1.0
