import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from bahe_tasks.core.metrics import (
    METRICS,
    auc,
    calibration,
    evaluate,
    expected_calibration_error,
    gauc,
    logloss,
    mean_user_auc,
    normalised_entropy,
    user_aucs,
)

# One table for the hand-worked rows. a: 3 rows, pairs won 0.5 (a tie) and 1 of 2.  b: 4 rows, pairs won 0, 0, 1, 1 of 4.
# c: one class.
USERS = np.array(["a", "b", "a", "c", "b", "a", "b", "b"], object)
LABELS = np.array([1, 1, 0, 1, 0, 0, 0, 1.0])
SCORES = np.array([0.5, 0.05, 0.5, 0.9, 0.4, 0.1, 0.1, 0.7])

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 3)), min_size=1, max_size=40).map(
    lambda drawn: tuple(np.array(column) for column in zip(*drawn, strict=True))
)


def test_auc_and_logloss_equal_scikit_learn(log):
    labels, scores, _ = log
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    inside = np.clip(scores, 1e-7, 1 - 1e-7)
    assert logloss(labels, scores) == pytest.approx(log_loss(labels, inside))


def test_user_averages_equal_scikit_learn_user_by_user(log):
    labels, scores, users = log
    masks = [users == user for user in sorted(set(users))]
    both = [mine for mine in masks if 0 < labels[mine].sum() < mine.sum()]
    of_user = np.array([roc_auc_score(labels[mine], scores[mine]) for mine in both])
    impressions = np.array([mine.sum() for mine in both])
    assert gauc(labels, scores, users) == pytest.approx((of_user * impressions).sum() / impressions.sum())
    assert mean_user_auc(labels, scores, users) == pytest.approx(of_user.mean())


def test_normalised_entropy_is_logloss_over_that_of_the_base_rate(log):
    labels, scores, _ = log
    inside, base_rate = np.clip(scores, 1e-7, 1 - 1e-7), np.full(len(labels), labels.mean())
    assert normalised_entropy(labels, scores) == pytest.approx(log_loss(labels, inside) / log_loss(labels, base_rate))
    assert normalised_entropy(labels, base_rate) == pytest.approx(1)


def test_calibration_error_equals_scikit_learns_calibration_curve():
    rng = np.random.default_rng(4)
    scores = rng.random(600)  # no ties, and 600 rows in 15 bins of 40
    labels = (rng.random(600) < scores**2).astype(float)
    observed, predicted = calibration_curve(labels, scores, n_bins=15, strategy="quantile")
    assert expected_calibration_error(labels, scores) == pytest.approx(np.abs(predicted - observed).mean())


def test_auc_by_hand():
    labels, scores = np.array([1, 0, 1, 0.0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert auc(labels, scores) == pytest.approx(3.5 / 4)  # pairs won: 1, 1, one half (a tie), 1


def test_user_averages_by_hand():
    of_user, impressions = user_aucs(LABELS, SCORES, USERS)
    assert of_user == pytest.approx([0.75, 0.5, np.nan], nan_ok=True)
    assert impressions.tolist() == [3, 4, 1]
    assert gauc(LABELS, SCORES, USERS) == pytest.approx((3 * 0.75 + 4 * 0.5) / 7)
    assert mean_user_auc(LABELS, SCORES, USERS) == pytest.approx((0.75 + 0.5) / 2)


def test_logloss_and_normalised_entropy_by_hand():
    labels, scores = np.array([1, 0, 0, 0.0]), np.array([0.5, 0.5, 0.25, 0.25])
    loss = (2 * np.log(2) + 2 * np.log(4 / 3)) / 4
    assert logloss(labels, scores) == pytest.approx(loss)
    assert normalised_entropy(labels, scores) == pytest.approx(loss / (0.25 * np.log(4) + 0.75 * np.log(4 / 3)))


def test_calibration_is_predicted_over_observed():
    assert calibration(np.array([1, 0, 1, 0]), np.array([0.9, 0.3, 0.6, 0.6])) == pytest.approx(1.2)
    assert calibration(np.zeros(2), np.array([0.1, 0.2])) == np.inf


def test_calibration_error_by_hand():
    labels, scores = np.array([1, 0, 1, 0, 0, 1.0]), np.array([0.9, 0.1, 0.4, 0.2, 0.3, 0.8])
    # Two bins of three: 0.1, 0.2, 0.3 with no click (gap 0.6) and 0.4, 0.8, 0.9 with three (gap 0.9).
    assert expected_calibration_error(labels, scores, bins=2) == pytest.approx((0.6 + 0.9) / 6)
    # Equal scores stay together: three bins could part them, yet all six share one, gap |6 * 0.5 - 2|.
    assert expected_calibration_error(np.array([1, 1, 0, 0, 0, 0.0]), np.full(6, 0.5), bins=3) == pytest.approx(1 / 6)


def test_one_class_and_no_rows_are_not_a_number():
    none, user = np.empty(0), np.empty(0, object)
    assert all(np.isnan(value) for value in evaluate(none, none, user).values())
    clicks = evaluate(np.ones(3), np.array([0.1, 0.2, 0.3]), np.array(["u"] * 3, object))
    assert {name for name, value in clicks.items() if np.isnan(value)} == {
        "auc", "gauc", "mean_user_auc", "normalised_entropy",
    }  # fmt: skip
    assert clicks["expected_calibration_error"] == pytest.approx(0.8)
    assert tuple(clicks) == METRICS


def test_logloss_of_a_sure_mistake_is_finite():
    assert logloss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-7))


@given(rows)
def test_ranking_metrics_see_only_the_order_of_scores(drawn):
    labels, scores, users = drawn
    for metric in (auc, lambda y, s: gauc(y, s, users), lambda y, s: mean_user_auc(y, s, users)):
        assert metric(labels, np.exp(scores)) == pytest.approx(metric(labels, scores), nan_ok=True)
        assert metric(labels, -scores) == pytest.approx(1 - metric(labels, scores), nan_ok=True)


@given(rows)
def test_one_user_has_the_auc_as_gauc_and_as_mean_user_auc(drawn):
    labels, scores, _ = drawn
    same = np.zeros(len(labels))
    for averaged in (gauc, mean_user_auc):
        assert averaged(labels, scores, same) == pytest.approx(auc(labels, scores), nan_ok=True)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_metric(drawn, random):
    labels, scores, users = drawn[0], drawn[1] / 10, drawn[2]
    order = np.array(random.sample(range(len(labels)), len(labels)))
    shuffled = evaluate(labels[order], scores[order], users[order])
    assert shuffled == pytest.approx(evaluate(labels, scores, users), nan_ok=True)


@given(rows)
def test_calibration_error_is_no_less_than_the_gap_of_all_rows_together(drawn):
    labels, scores = drawn[0], drawn[1] / 10
    error = expected_calibration_error(labels, scores)
    assert abs(scores.mean() - labels.mean()) - 1e-12 <= error <= 1
