from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.gate_frames import (
    ChallengerMetrics,
    DayCounts,
    _smallest_ends,
    asked_of,
    embedding_frames,
    input_frames,
)

DAY = date(2013, 9, 24)


def asked(name, rows, *, rows_a_batch=2):
    return asked_of(name, pa.Table.from_pylist(rows, schema=arrow_schema(name)).to_batches(rows_a_batch))


def frames_of(*, impressions=(), events=0, history=None, counts=None):
    shown = {"dt": DAY, "shown_at": datetime(2013, 9, 24, 5, tzinfo=UTC)}
    return input_frames(
        behavior_events=asked("behavior_events", [{"dt": DAY}] * events),
        items=asked("items", []),
        impressions=asked("impressions", [shown | row for row in impressions]),
        counts=counts or DayCounts(landed_rows=10, table_rows=6, duplicate_rows=1, quarantined_rows=3),
        history=history or {},
    )


def test_the_days_counts_add_up_to_shares():
    counts = frames_of()["day_counts"].iloc[0]
    assert (counts.landed_rows, counts.unaccounted_rows, counts.quarantined_share) == (10, 0, 0.3)


@pytest.mark.parametrize("counts", [DayCounts(10, 6, 1, 2), DayCounts(10, 6, 1, 4)])
def test_a_row_lost_or_doubled_is_unaccounted_for(counts):
    assert counts.unaccounted_rows == 1


def test_a_day_is_compared_with_the_median_of_the_earlier_days_that_have_rows():
    frames = frames_of(impressions=[{}] * 3, history={"impressions": [0, 10, 30, 0, 20]})
    assert frames["day_counts"].impressions_share_of_median.tolist() == [3 / 20]


@pytest.mark.parametrize("history", [{}, {"impressions": []}, {"impressions": [0, 0]}])
def test_without_an_earlier_day_with_rows_there_is_nothing_to_compare(history):
    assert frames_of(impressions=[{}], history=history)["day_counts"].impressions_share_of_median.isna().all()


def test_a_source_without_rows_today_is_not_compared():
    counts = frames_of(history={"behavior_events": [10], "impressions": [10]})["day_counts"]
    assert counts[["behavior_events_share_of_median", "impressions_share_of_median"]].isna().all(axis=None)


def test_the_smallest_sequence_end_of_an_impression_without_history_is_missing():
    frame = frames_of(impressions=[{"sequence_ends": [("a", 4), ("b", 2)]}, {"sequence_ends": []}, {}])["impressions"]
    assert frame.smallest_sequence_end.iloc[0] == 2
    assert frame.smallest_sequence_end.iloc[1:].isna().all()


def test_a_null_among_the_sequence_ends_is_as_wrong_as_a_negative_one():
    rows = [{"sequence_ends": [("a", 4), ("b", None)]}, {"sequence_ends": [("a", -2), ("b", None)]}]
    table = pa.concat_tables([pa.Table.from_pylist([row], schema=arrow_schema("impressions")) for row in rows])
    assert _smallest_ends(table["sequence_ends"]).tolist() == [-1, -2]


def test_of_texts_it_is_kept_whether_they_are_there():
    frame = frames_of(impressions=[{"user_id": "u"}, {"user_id": ""}, {"user_id": None}])["impressions"]
    assert frame.user_id.fillna(0).tolist() == [1, 1, 0]


def test_what_keys_look_like_is_asked_of_each_once():
    rows = [{"dt": DAY, "behavior_key": key} for key in ("b", "a", None, "b", "c", "a", None)]
    frame = input_frames(
        behavior_events=asked("behavior_events", rows),
        items=asked("items", []),
        impressions=asked("impressions", []),
        counts=DayCounts(7, 7, 0, 0),
        history={},
    )["behavior_events"]
    assert frame.distinct_behavior_key.astype(object).where(frame.distinct_behavior_key.notna(), None).tolist() == [
        *("b", "a", None, None, "c", None, None)
    ]
    assert frame.behavior_key.notna().tolist() == [True, True, False, True, True, True, False]


def test_ids_that_stand_more_than_once_are_named_wherever_they_stand():
    frame = frames_of(impressions=[{"impression_id": name} for name in ("a", "b", None, "c", "b", None)])["impressions"]
    assert frame.repeated_impression_id.dropna().to_dict() == {1: "b", 4: "b"}


def test_times_stay_utc():
    frame = frames_of(impressions=[{}])["impressions"]
    assert frame.shown_at.iloc[0] == pd.Timestamp("2013-09-24T05:00Z")


def test_embeddings_are_read_as_little_endian_float16():
    vectors = [np.array([3.0, 4.0], "<f2"), np.array([np.inf, 0.0], "<f2"), np.array([1.0], "<f2")]
    table = pa.table({"behavior_key": ["a", "b", "c"], "embedding": [vector.tobytes() for vector in vectors]})
    frames = embedding_frames(table, missing_keys=2, needed_keys=5)
    found = frames["behavior_embeddings"]
    assert found.dimension.tolist() == [2, 2, 1]
    assert found.finite.tolist() == [True, False, True]
    assert found.norm.iloc[0] == 5.0  # 3-4-5 triangle
    assert frames["embedding_coverage"].to_dict("records") == [{"needed_keys": 5, "missing_keys": 2}]


def test_a_vector_of_half_a_number_has_no_dimension_of_any_model():
    table = pa.table({"behavior_key": ["a", "b"], "embedding": [b"\0" * 5, b""]})
    found = embedding_frames(table, missing_keys=0, needed_keys=2)["behavior_embeddings"]
    assert found.dimension.tolist() == [2.5, 0]


def test_a_figure_that_was_not_computed_is_not_a_number():
    frame = ChallengerMetrics(rows=3, positives=1, has_reference=False, non_finite_scores=0, auc=0.5).frame()
    assert frame.auc.tolist() == [0.5]
    assert frame.auc_difference_high.isna().all()
