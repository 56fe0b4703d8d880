"""Parquet files that a careless writer makes: each row is judged by itself, and none of them stops a day."""

from __future__ import annotations

import decimal
import json
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_landing import DAY, EVENT, MAP, NOON, good_and_reasons, judged, write_parquet

from spark_jobs.landing_files import UnreadableFileError


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view()])
def test_bytes_that_are_no_text_are_refused_in_their_own_row(landing, kind):
    write_parquet(landing, {"user_id": pa.array([b"\xff\xff", b"ok", b"\xfe\xfe"], kind)})
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["user_id"] for row in good], reasons) == (["ok"], {"invalid_utf8": 2})


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_of_any_type_are_texts(landing, kind):
    write_parquet(landing, {"user_id": pa.array(["a", "b", "a"]).cast(kind)})
    assert [row["user_id"] for row in good_and_reasons(landing)[0]] == ["a", "b", "a"]


def test_a_byte_inside_a_list_that_is_no_text_refuses_its_row_alone(landing):
    lists = pa.array([[b"\xff"], [b"ok"], None], pa.list_(pa.binary()))
    tags = pa.ListArray.from_arrays(
        lists.offsets, pa.StringArray.from_buffers(2, *lists.values.buffers()[1:], lists.values.buffers()[0])
    )
    write_parquet(landing, {"tags": tags})
    good, reasons, refused = good_and_reasons(landing)
    assert (len(good), reasons) == (2, {"invalid_utf8": 1})
    assert "\ufffd" in refused[0]["raw"]


def test_times_beyond_those_that_python_knows(landing):
    slip = pa.array([int(NOON.timestamp() * 10**6), int(NOON.timestamp() * 1000), 2**62], pa.int64())
    write_parquet(landing, {"occurred_at": slip.cast(pa.timestamp("ms", "UTC"))})
    good, reasons, refused = good_and_reasons(landing)
    assert [row["occurred_at"] for row in good] == [NOON]
    assert reasons == {"time_after_day": 1, "unreadable_time": 1}
    assert all(row["raw"] for row in refused)


def test_a_whole_number_beyond_those_of_64_bits_with_a_sign_is_no_time_in_its_own_row(landing):
    seconds = int(NOON.timestamp())
    write_parquet(landing, {"occurred_at": pa.array([2**64 - 1, seconds, 2**63, seconds * 10**9], pa.uint64())})
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["occurred_at"] for row in good], reasons) == ([NOON, NOON], {"unreadable_time": 2})


def test_the_quarantine_has_times_in_utc(landing):
    times = pa.array([datetime(2024, 3, 12, 8, 0, 0, 250_000)], pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    write_parquet(landing, {"occurred_at": times.cast(pa.timestamp("us", "+02:00"))})
    assert '"occurred_at":"2024-03-12 08:00:00.25"' in good_and_reasons(landing)[2][0]["raw"]


def test_numbers_of_any_type(landing):
    numbers = {
        "num_a": pa.array([0.1, None, 1.0], pa.float32()),
        "num_b": pa.array([2**63, 1, 2], pa.uint64()),
        "num_c": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]),
        "num_d": pa.array([-0.0, 0.0, 1.0]),
    }
    write_parquet(landing, numbers, source="items")
    found = [dict(row["num"]) for row in good_and_reasons(landing, "items")[0]]
    assert found == [
        {"a": 0.1, "b": 2.0**63, "c": 1.5, "d": 0.0},
        {"b": 1.0, "d": 0.0},
        {"a": 1.0, "b": 2.0, "c": -2.25, "d": 1.0},
    ]
    assert not np.signbit([row["d"] for row in found]).any()


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_row_by_row(landing):
    table = pa.table([*(pa.array([value]) for value in EVENT.values()), pa.array(["u2"])], names=[*EVENT, "user_id"])
    landing.raw("behavior_events", DAY, "a.parquet", b"")
    pq.write_table(table, landing.folder / "behavior_events" / f"dt={DAY}" / "a.parquet")
    good, reasons, refused = good_and_reasons(landing)
    assert (good, reasons) == ([], {"repeated_column": 1})
    assert json.loads(refused[0]["raw"]) == {**EVENT, "user_id (2)": "u2"}


@pytest.mark.parametrize(
    "kind", [MAP, pa.list_(MAP), pa.struct([("of", MAP)]), pa.map_(pa.string(), pa.int32())], ids=str
)
def test_rows_of_a_file_with_maps_are_refused_one_by_one(landing, kind):
    """Arrow 25 ends the process when it casts maps that were taken."""
    value = {"a": 1} if kind.equals(pa.map_(pa.string(), pa.int32())) else {"a": "1"}
    wrapped = [value] if pa.types.is_list(kind) else {"of": value} if pa.types.is_struct(kind) else value
    write_parquet(landing, {"user_id": ["u", "", "v"], "properties": pa.array([wrapped, wrapped, None], kind)})
    good, reasons, refused = good_and_reasons(landing)
    assert ([row["user_id"] for row in good], reasons) == (["u", "v"], {"missing_id": 1})
    assert "properties" in json.loads(refused[0]["raw"])


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_ids_that_pandas_made_floats_are_whole_numbers_and_nan_is_absent(landing, kind):
    write_parquet(landing, {"item_id": pa.array([5, None, float("nan"), 16777215, 0.5], kind)})
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["item_id"] for row in good], reasons) == (["5", None, None, "16777215", "0.5"], {})


def test_whole_microseconds_are_not_taken_for_nanoseconds(landing):
    known = [int(NOON.timestamp()) * unit for unit in (1, 10**6, 10**9)]
    rows = {"impression_id": ["s", "us", "ns"], "user_id": ["u"] * 3, "item_id": ["i"] * 3, "label": [1] * 3}
    landing.raw("impressions", DAY, "a.parquet", b"")
    table = pa.table({**rows, "shown_at": [NOON] * 3, "label_known_at": pa.array(known, pa.int64())})
    pq.write_table(table, landing.folder / "impressions" / f"dt={DAY}" / "a.parquet")
    good, reasons, _ = good_and_reasons(landing, "impressions")
    assert {row["impression_id"]: row["label_known_at"] for row in good} == {"s": NOON, "ns": NOON}
    assert reasons == {"unreadable_time": 1}


def test_a_parquet_file_with_broken_pages_is_told_by_name(landing):
    write_parquet(landing, {"user_id": [f"user {n}" for n in range(1000)]})
    file = landing.folder / "behavior_events" / f"dt={DAY}" / "a.parquet"
    content = bytearray(file.read_bytes())
    content[50:500] = b"\xff" * 450
    file.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.parquet cannot be read"):
        judged(landing)


def test_texts_that_are_views_in_a_column_nobody_knows_are_passed_over(landing):
    views = pa.array([["a"], None], pa.list_(pa.string_view()))
    both = pa.struct([("x", pa.string_view()), ("y", pa.list_(pa.binary_view()))])
    write_parquet(landing, {"text": ["good", ""], "tags": views, "more": pa.array([{"x": "a", "y": [b"b"]}] * 2, both)})
    good, reasons, refused = good_and_reasons(landing)
    assert ([row["text"] for row in good], reasons) == (["good"], {"empty_text": 1})
    assert json.loads(json.loads(refused[0]["raw"])["more"]) == {"x": "a", "y": ["b"]}


def no_texts(kind):
    """Two lists of one text each, of which the first is not UTF-8."""
    values = pa.array([b"\xff", b"ok"])
    texts = pa.StringArray.from_buffers(2, *values.buffers()[1:])
    return pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts, type=kind)


def test_a_text_that_is_none_in_a_list_without_nulls_refuses_its_row_alone(landing):
    write_parquet(landing, {"tags": no_texts(pa.list_(pa.field("element", pa.string(), nullable=False)))})
    good, reasons, _ = good_and_reasons(landing)
    assert (len(good), reasons) == (1, {"invalid_utf8": 1})


def test_a_time_that_is_not_a_number_is_absent(landing):
    known = pa.array([float("nan"), 1710072000.5])
    ids = {"impression_id": ["a", "b"], "item_id": ["i", "i"], "shown_at": [NOON] * 2, "label": [1, 0]}
    write_parquet(landing, {**ids, "label_known_at": known}, "impressions")
    good, reasons, _ = good_and_reasons(landing, "impressions")
    assert ([row["label_known_at"] is None for row in good], reasons) == ([True, False], {})
