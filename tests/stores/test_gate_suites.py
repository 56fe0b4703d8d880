from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bahe_tasks.config import GateConfig
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.expectations import expectation_name, stops, validate
from bahe_tasks.stores.gate_frames import ChallengerMetrics, DayCounts, asked_of, embedding_frames, input_frames
from bahe_tasks.stores.gate_suites import challenger_suites, embedding_suites, input_suites

DAY = date(2013, 9, 24)
GATE = GateConfig(min_gate_rows=100, max_auc_loss=0.005, min_calibration=0.7, max_calibration=1.4)
KEY = "0123456789abcdef" * 4
GOOD = ChallengerMetrics(
    rows=500,
    users=50,
    positives=100,
    has_reference=True,
    non_finite_scores=0,
    score_std=0.1,
    auc_difference_high=0.01,
    calibration_low=0.9,
    calibration_high=1.1,
)
FIRST = ChallengerMetrics(
    rows=500, users=50, positives=100, has_reference=False, non_finite_scores=0, score_std=0.1, logloss_excess_low=-0.01
)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def table(name, *rows):
    return asked_of(name, pa.Table.from_pylist(list(rows), schema=arrow_schema(name)).to_batches())


def day_frames(events, items, impressions, counts, history):
    return input_frames(
        behavior_events=table("behavior_events", *events),
        items=table("items", *items),
        impressions=table("impressions", *impressions),
        counts=counts,
        history=history,
    )


EVENT = {
    "dt": DAY,
    "user_id": "u",
    "feature": "bills",
    "occurred_at": at("2013-09-21T00:00:00"),
    "behavior_key": KEY,
    "text": "tea",
}
ITEM = {"dt": DAY, "item_id": "i", "updated_at": at("2013-09-24T23:59:59.999999"), "title_key": None}
IMPRESSION = {
    "dt": DAY,
    "impression_id": "x",
    "user_id": "u",
    "item_id": "i",
    "shown_at": at("2013-09-24T12:00:00"),
    "label": 1,
    "label_date": DAY,
    "sequence_ends": [("bills", 0)],
}


def judged(frames, suites, gx_dir):
    results = validate(frames, suites, gx_dir=gx_dir, day=DAY, stage="validate_inputs")
    return {result.expectation: result for result in results}


def names(suites):
    return [expectation_name(frame, expectation) for frame, found in suites.items() for expectation in found]


def test_a_good_day_passes_every_expectation(tmp_path):
    frames = day_frames([EVENT], [ITEM], [IMPRESSION], DayCounts(3, 3, 0, 0), {"impressions": [40]})
    suites = input_suites(DAY, gate=GATE, late_days=3)
    found = judged(frames, suites, tmp_path)
    assert list(found) == names(suites)
    assert {result.outcome for result in found.values()} == {"passed"}


def test_every_expectation_of_the_inputs_can_fail(tmp_path):
    too_old, too_new = at("2013-09-20T23:59:59.999999"), at("2013-09-25T00:00:00")
    frames = day_frames(
        [{"dt": DAY}, EVENT | {"occurred_at": too_old, "behavior_key": "A" * 64}],
        [{"dt": DAY}, ITEM | {"updated_at": too_new, "title_key": KEY[1:]}],
        [
            {"dt": DAY},
            IMPRESSION | {"label": 2},
            IMPRESSION | {"shown_at": too_new, "sequence_ends": [("a", 3), ("b", -1)]},
        ],
        DayCounts(landed_rows=0, table_rows=7, duplicate_rows=0, quarantined_rows=1, impressions_lost=2),
        {"behavior_events": [1000], "impressions": [1000]},
    )
    found = judged(frames, input_suites(DAY, gate=GATE, late_days=3), tmp_path)
    assert {name: result.outcome for name, result in found.items() if result.outcome != "failed"} == {}
    assert "2013-09-25" in found["impressions.expect_column_values_to_be_between(shown_at)"].observed
    keys = found["behavior_keys.expect_column_values_to_match_regex(behavior_key)"]
    assert keys.observed == f"1 of 1 rows: {'A' * 64}"
    repeated = found["impressions.expect_column_values_to_be_null(repeated_impression_id)"]
    assert repeated.observed == "2 of 3 rows: x, x"
    share = found["day_counts.expect_column_values_to_be_between(impressions_share_of_median)"]
    assert (share.observed, share.required) == (
        "0.003",
        "column values to be between: min_value=0.01 (gate.min_rows_share)",
    )


@pytest.mark.parametrize(
    ("events", "impressions"), [([EVENT], []), ([], [IMPRESSION])], ids=["no impressions", "no events"]
)
def test_a_day_without_impressions_or_without_events_passes(tmp_path, events, impressions):
    history = {"behavior_events": [50], "impressions": [50]}
    frames = day_frames(events, [], impressions, DayCounts(1, 1, 0, 0), history)
    found = judged(frames, input_suites(DAY, gate=GATE, late_days=3), tmp_path)
    assert {result.outcome for result in found.values()} == {"passed"}


def test_every_expectation_of_the_embeddings_can_fail_and_good_ones_pass(tmp_path):
    suites = embedding_suites(2)
    good, short, nan = (np.array(numbers, "<f2").tobytes() for numbers in ([3, 4], [0], [np.nan, 0]))
    keys = {"behavior_key": [KEY, KEY[::-1]]}
    frames = embedding_frames(pa.table(keys | {"embedding": [good, good]}), missing_keys=0, needed_keys=2)
    assert {result.outcome for result in judged(frames, suites, tmp_path).values()} == {"passed"}
    keys = {"behavior_key": ["short", KEY, KEY]}
    frames = embedding_frames(pa.table(keys | {"embedding": [short, nan, good]}), missing_keys=1, needed_keys=4)
    found = judged(frames, suites, tmp_path)
    assert [result.outcome for result in found.values()] == ["failed"] * len(names(suites))


def test_no_new_embeddings_pass(tmp_path):
    empty = arrow_schema("behavior_embeddings").empty_table()
    frames = embedding_frames(empty, missing_keys=0, needed_keys=0)
    assert not stops(judged(frames, embedding_suites(2), tmp_path).values())


BETWEEN = "challenger.expect_column_{}_to_be_between({})"


@pytest.mark.parametrize(
    ("metrics", "failed"),
    [
        (GOOD, []),
        (FIRST, []),
        (replace(GOOD, auc_difference_high=-0.005), []),  # the bound itself is allowed
        (replace(GOOD, auc_difference_high=-0.0051), [BETWEEN.format("min", "auc_difference_high")]),
        (replace(GOOD, calibration_low=0.3, calibration_high=0.71), []),  # not wholly outside
        (replace(GOOD, calibration_low=0.3, calibration_high=0.69), [BETWEEN.format("min", "calibration_high")]),
        (replace(GOOD, calibration_low=1.41, calibration_high=2.0), [BETWEEN.format("max", "calibration_low")]),
        (replace(GOOD, score_std=0.0), [BETWEEN.format("min", "score_std")]),
        (replace(GOOD, non_finite_scores=1), [BETWEEN.format("max", "non_finite_scores")]),
        (replace(FIRST, logloss_excess_low=0.001), [BETWEEN.format("max", "logloss_excess_low")]),
        (replace(FIRST, score_std=0.0), [BETWEEN.format("min", "score_std")]),
        (replace(GOOD, auc_difference_high=float("nan")), [BETWEEN.format("min", "auc_difference_high")]),
        (replace(GOOD, calibration_low=None), [BETWEEN.format("max", "calibration_low")]),
    ],
)
def test_a_challenger_is_refused_only_where_the_evidence_is_clear(tmp_path, metrics, failed):
    asked, unasked = challenger_suites(metrics, gate=GATE)
    found = judged({"challenger": metrics.frame()}, asked, tmp_path)
    assert unasked == {}
    assert [name for name, result in found.items() if result.outcome != "passed"] == failed


@pytest.mark.parametrize("scarce", [{"rows": 99, "positives": 9}, {"positives": 0}, {"positives": 500}, {"rows": 0}])
@pytest.mark.parametrize("metrics", [GOOD, FIRST])
def test_with_few_rows_or_one_class_nothing_is_compared(metrics, scarce):
    asked, unasked = challenger_suites(replace(metrics, **scarce), gate=GATE)
    assert names(asked) == [BETWEEN.format("max", "non_finite_scores")]
    assert sorted(names(asked) + names(unasked)) == sorted(names(challenger_suites(metrics, gate=GATE)[0]))


@pytest.mark.parametrize("metrics", [GOOD, FIRST])
def test_with_few_users_scores_must_differ_and_nothing_is_compared(metrics):
    asked, unasked = challenger_suites(replace(metrics, users=4), gate=GATE)
    assert names(asked) == [BETWEEN.format("max", "non_finite_scores"), BETWEEN.format("min", "score_std")]
    assert sorted(names(asked) + names(unasked)) == sorted(names(challenger_suites(metrics, gate=GATE)[0]))


def test_a_frame_of_figures_has_one_row():
    assert isinstance(GOOD.frame(), pd.DataFrame)
    assert len(GOOD.frame()) == 1


def test_of_one_user_nothing_is_compared_whatever_min_gate_users_says():
    asked, without = challenger_suites(replace(GOOD, users=1), gate=replace(GATE, min_gate_users=1))
    assert len(asked["challenger"]) == 2  # finite scores that differ
    assert len(without["challenger"]) == 3
    assert challenger_suites(replace(GOOD, users=2), gate=replace(GATE, min_gate_users=1))[1] == {}
