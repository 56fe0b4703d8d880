"""Values that a careless writer makes: each row is judged by itself, and none of them stops a day."""

from __future__ import annotations

import decimal
import json
import os
from collections import Counter
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.behavior_key import canonical_text
from spark_jobs.landed import read_json_lines
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece, settle_rows
from spark_jobs.landing_files import UnreadableFileError

DAY = date(2024, 3, 10)
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
MAP = pa.map_(pa.string(), pa.string())
EVENT = {"user_id": "u", "feature": "f", "occurred_at": "2024-03-10", "text": "t"}


def judged(landing, source="behavior_events"):
    return [of for piece in pieces_of(str(landing.folder), source, [DAY]) for of in judge_piece(piece, late_days=3)]


def good_and_reasons(landing, source="behavior_events"):
    parts = judged(landing, source)
    refused = [row for of in parts for row in of.refused.to_pylist()]
    return [row for of in parts for row in of.good.to_pylist()], Counter(row["reason"] for row in refused), refused


def write_parquet(landing, columns, source="behavior_events"):
    count = len(next(iter(columns.values())))
    good = {"user_id": ["u"] * count, "feature": ["f"] * count, "occurred_at": [NOON] * count, "text": ["t"] * count}
    if source == "items":
        good = {"item_id": ["i"] * count, "title": ["t"] * count, "updated_at": [NOON] * count}
    landing.raw(source, DAY, "a.parquet", b"")
    pq.write_table(pa.table({**good, **columns}), landing.folder / source / f"dt={DAY}" / "a.parquet")


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


def test_minus_zero_is_zero(landing):
    landing.rows("behavior_events", DAY, [{**EVENT, "value": "-0"}, {**EVENT, "value": 0}, {**EVENT, "value": "-0.0"}])
    good = [of.good for of in judged(landing)]
    settled = settle_rows("behavior_events", good, [], stored_of=lambda late: late.slice(0, 0))
    assert settled.kept["copies"].to_pylist() == [3]


def test_json_that_python_stumbles_over(landing):
    lines = [
        '{"user_id":"a","feature":"f","occurred_at":1e99999999999999999999,"text":"t"}',
        '{"user_id":"b","feature":"f","occurred_at":"2024-03-10","text":"t","z":true,"n":' + "1" * 5000 + "}",
        '{"user_id":"c","feature":"f","occurred_at":"2024-03-10","text":"t","cat_\\ud800":"v"}',
        '{"user_id":"d","feature":"f","occurred_at":"2024-03-10","text":"\\ud800x"}',
        '{"user_id":"e","feature":"f","occurred_at":"0000-01-01 00:00:00","text":"t"}',
        "[" * 100_000,
    ]
    landing.raw("behavior_events", DAY, "a.jsonl", "\n".join(lines).encode())
    good, reasons, _ = good_and_reasons(landing)
    assert [row["user_id"] for row in good] == ["b", "c", "d"]
    assert reasons == {"unreadable_time": 2, "malformed_json": 1}


def test_half_a_surrogate_pair_is_left_out_of_a_text_and_refuses_an_id(landing):
    texts = ["Beach trip \ud83c", "\ud83d", "whole \U0001f3d6", "\udc00a"]
    ids = ["u\ud83c", "u\ud83d", "u?", "u\U0001f3d6"]
    rows = [{**EVENT, "user_id": f"text {n}", "text": text} for n, text in enumerate(texts)]
    landing.rows("behavior_events", DAY, [*rows, *({**EVENT, "user_id": of} for of in ids)])
    good, reasons, refused = good_and_reasons(landing)
    assert {row["user_id"]: row["text"] for row in good} == {
        **{f"text {n}": canonical_text(text) for n, text in enumerate(texts) if n != 1},
        **{"u?": "t", "u\U0001f3d6": "t"},
    }
    assert reasons == {"empty_text": 1, "invalid_utf8": 2}
    assert json.dumps({**EVENT, "user_id": ids[0]}) in [row["raw"] for row in refused]


def test_a_file_of_a_mark_alone_has_no_row(landing):
    landing.raw("behavior_events", DAY, "a.jsonl", b"\xef\xbb\xbf\n")
    landing.raw("behavior_events", DAY, "b.csv", b"\xef\xbb\xbf")
    assert good_and_reasons(landing) == ([], {}, [])


def test_fields_of_their_own_in_every_line_are_read_few_lines_at_a_time(landing, monkeypatch):
    monkeypatch.setattr(read_json_lines, "_VALUES_AT_ONCE", 100)
    landing.rows(
        "items", DAY, [{"item_id": f"i{n}", "title": "t", "updated_at": "2024-03-10", f"num_{n}": n} for n in range(50)]
    )
    parts = judged(landing, "items")
    assert len(parts) > 4
    found = [(row["item_id"], dict(row["num"])) for of in parts for row in of.good.to_pylist()]
    assert found == [(f"i{n}", {str(n): float(n)}) for n in range(50)]


def test_csv_that_is_not_utf8(landing):
    header = "item_id,title,updated_at,cat_gr\u00f6\u00dfe\n".encode("latin-1")
    rows = b"a,t,2024-03-10,x\nb,\xff,2024-03-10,x\nc,t,2024-03-10,x,\xff\nd,t,2024-03-10\n"
    landing.raw("items", DAY, "a.csv", b"   \n" + header + rows)
    good, reasons, _ = good_and_reasons(landing, "items")
    assert [row["item_id"] for row in good] == ["a"]
    assert reasons == {"invalid_utf8": 2, "malformed_csv": 1}


def test_a_refused_csv_row_can_be_landed_again(landing):
    landing.raw("behavior_events", DAY, "a.csv", b'user_id,feature,occurred_at,text\n,f,2024-03-10,"x\ny, ""z"""\n')
    assert good_and_reasons(landing)[2][0]["raw"] == ',f,2024-03-10,"x\ny, ""z"""'


def test_a_csv_with_two_columns_of_one_name_is_refused_row_by_row(landing):
    header = b"user_id,feature,occurred_at,text, text ,other,other,,\n"
    landing.raw("behavior_events", DAY, "a.csv", header + b"u,f,2024-03-10,one,two,1,2,,\nv,f\n")
    good, reasons, refused = good_and_reasons(landing)
    assert (good, reasons) == ([], {"repeated_column": 1, "malformed_csv": 1})
    assert refused[0]["raw"] == "u,f,2024-03-10,one,two,1,2,,"


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_row_by_row(landing):
    table = pa.table([*(pa.array([value]) for value in EVENT.values()), pa.array(["u2"])], names=[*EVENT, "user_id"])
    landing.raw("behavior_events", DAY, "a.parquet", b"")
    pq.write_table(table, landing.folder / "behavior_events" / f"dt={DAY}" / "a.parquet")
    good, reasons, refused = good_and_reasons(landing)
    assert (good, reasons) == ([], {"repeated_column": 1})
    assert json.loads(refused[0]["raw"]) == {**EVENT, "user_id (2)": "u2"}


def test_two_columns_of_a_name_that_nobody_reads_are_ignored(landing):
    landing.raw("behavior_events", DAY, "a.csv", b"user_id,feature,occurred_at,text,a,a,,\nu,f,2024-03-10,one,1,2,,\n")
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["text"] for row in good], reasons) == (["one"], {})


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


def test_values_too_great_to_be_summed_are_no_numbers(landing):
    values = ["1e30", "-1e30", "1.1e30", "-1e200", "9" * 400]
    landing.rows("behavior_events", DAY, [{**EVENT, "value": value} for value in values], form="jsonl")
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["value"] for row in good], reasons) == ([1e30, -1e30], {"unreadable_number": 3})


def test_a_label_known_in_no_year_there_is_refuses_its_row(landing):
    landed = {"user_id": "u", "item_id": "i", "shown_at": "2024-03-10", "label": 1}
    known = ["2024-03-11", 253370764799, 9000000000000, 1710072000000, None]
    rows = [{**landed, "impression_id": str(n), "label_known_at": time} for n, time in enumerate(known)]
    landing.rows("impressions", DAY, rows, form="jsonl")
    good, reasons, _ = good_and_reasons(landing, "impressions")
    assert ([row["impression_id"] for row in good], reasons) == (["0", "1", "4"], {"unreadable_time": 2})


def test_whole_microseconds_are_not_taken_for_nanoseconds(landing):
    known = [int(NOON.timestamp()) * unit for unit in (1, 10**6, 10**9)]
    rows = {"impression_id": ["s", "us", "ns"], "user_id": ["u"] * 3, "item_id": ["i"] * 3, "label": [1] * 3}
    landing.raw("impressions", DAY, "a.parquet", b"")
    table = pa.table({**rows, "shown_at": [NOON] * 3, "label_known_at": pa.array(known, pa.int64())})
    pq.write_table(table, landing.folder / "impressions" / f"dt={DAY}" / "a.parquet")
    good, reasons, _ = good_and_reasons(landing, "impressions")
    assert {row["impression_id"]: row["label_known_at"] for row in good} == {"s": NOON, "ns": NOON}
    assert reasons == {"unreadable_time": 1}


def test_a_quote_in_a_csv_that_nothing_closes_refuses_its_line_alone(landing):
    lines = [
        "user_id,feature,occurred_at,text",
        'a,f,2024-03-10,"two\nlines" and a tail',
        'b,f,2024-03-10,"left open',
        "c,f,2024-03-10,good",
        "",
        "d,f,2024-03-10,good too",
    ]
    landing.raw("behavior_events", DAY, "a.csv", "\r\n".join(lines).encode())
    good, reasons, refused = good_and_reasons(landing)
    assert {row["user_id"]: row["text"] for row in good} == {"a": "two lines and a tail", "c": "good", "d": "good too"}
    assert (reasons, [row["raw"] for row in refused]) == ({"malformed_csv": 1}, [lines[2]])


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


@pytest.mark.parametrize("first_or_last", [date.min, date.max])
def test_the_first_and_the_last_day_there_are_do_not_stop_a_run(landing, first_or_last):
    landing.rows("items", first_or_last, [{"item_id": "i", "title": "t", "updated_at": f"{first_or_last}T00:00:00Z"}])
    (piece,) = pieces_of(str(landing.folder), "items", [first_or_last])
    (of,) = judge_piece(piece, late_days=3)
    assert len(of.rows) == 1


def test_a_file_whose_name_is_not_utf_8_is_told_with_its_folder(landing):
    landing.rows("behavior_events", DAY, [EVENT])
    folder = landing.folder / "behavior_events" / f"dt={DAY}"
    (folder / os.fsdecode(b"caf\xe9.txt")).touch()
    with pytest.raises(UnreadableFileError, match="has a file whose name is not UTF-8"):
        judged(landing)
