from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bahe_tasks.stores import gate_frames
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.gate_frames import (
    ChallengerMetrics,
    DayCounts,
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
    ends = [[("a", 4), ("b", 2)], [], None, [("a", 5)], [("b", 7), ("a", 6)]]
    frame = frames_of(impressions=[{"sequence_ends": of_row} for of_row in ends])["impressions"]
    assert frame.smallest_sequence_end.fillna(-9).tolist() == [2, -9, -9, 5, 6]


def test_a_null_among_the_sequence_ends_is_as_wrong_as_a_negative_one():
    rows = [{"sequence_ends": [("a", 4), ("b", None)]}, {"sequence_ends": [("a", -2), ("b", None)]}]
    assert frames_of(impressions=rows)["impressions"].smallest_sequence_end.tolist() == [-1, -2]


def test_of_texts_it_is_kept_whether_they_are_there():
    frame = frames_of(impressions=[{"user_id": "u"}, {"user_id": ""}, {"user_id": None}])["impressions"]
    assert frame.user_id.fillna(0).tolist() == [1, 1, 0]


def test_what_keys_look_like_is_asked_of_each_once():
    rows = [{"dt": DAY, "behavior_key": key} for key in ("b", "a", None, "b", "c", "a", None)]
    frames = input_frames(
        behavior_events=asked("behavior_events", rows),
        items=asked("items", [{"dt": DAY, "title_key": "t"}] * 2),
        impressions=asked("impressions", []),
        counts=DayCounts(9, 9, 0, 0),
        history={},
    )
    assert frames["behavior_keys"].behavior_key.tolist() == ["b", "a", "c"]
    assert frames["title_keys"].title_key.tolist() == ["t"]
    assert frames["behavior_events"].behavior_key.notna().tolist() == [True, True, False, True, True, True, False]


@pytest.mark.parametrize(
    ("ids", "repeated"), [(["a", "b", None, "c", "b", None], {1: "b", 4: "b"}), (["a", None, None], {}), ([], {})]
)
def test_ids_that_stand_more_than_once_are_named_wherever_they_stand(ids, repeated):
    frame = frames_of(impressions=[{"impression_id": name} for name in ids])["impressions"]
    assert frame.repeated_impression_id.dropna().to_dict() == repeated


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


def test_a_vector_of_half_a_number_or_of_none_has_no_dimension_of_any_model():
    table = pa.table({"behavior_key": ["a", "b", "c"], "embedding": pa.array([b"\0" * 5, b"", None], pa.binary())})
    found = embedding_frames(table, missing_keys=0, needed_keys=2)["behavior_embeddings"]
    assert found.dimension.tolist() == [2.5, 0, 0]


def test_vectors_stay_with_their_keys_over_blocks_and_chunks(monkeypatch):
    monkeypatch.setattr(gate_frames, "_ROWS_AT_ONCE", 3)
    vectors = [np.full(1 + n % 2, n, "<f2") for n in range(10)]
    keys = pa.chunked_array([["0", "1"], [str(n) for n in range(2, 10)]])
    blobs = pa.chunked_array([pa.array([vector.tobytes() for vector in vectors], pa.binary())])
    found = embedding_frames(pa.table({"behavior_key": keys, "embedding": blobs}), missing_keys=0, needed_keys=0)[
        "behavior_embeddings"
    ]
    assert found.behavior_key.tolist() == [str(n) for n in range(10)]
    assert found.dimension.tolist() == [1 + n % 2 for n in range(10)]
    np.testing.assert_allclose(found.norm, [n * np.sqrt(1 + n % 2) for n in range(10)], rtol=1e-6)


def test_a_figure_that_was_not_computed_is_not_a_number():
    frame = ChallengerMetrics(rows=3, users=2, positives=1, has_reference=False, non_finite_scores=0, auc=0.5).frame()
    assert frame.auc.tolist() == [0.5]
    assert frame.auc_difference_high.isna().all()
