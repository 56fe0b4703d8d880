"""Every way a landed row can be broken has its reason, in each format, and no landed row is lost."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.count_rows import RowsLostError, count_rows
from spark_jobs.derived.steps import rows_in
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece
from spark_jobs.settle_landing import settled_landing
from spark_jobs.settled_rows import SettledRows

DAY = date(2024, 3, 10)
NOON = "2024-03-10T12:00:00Z"
FORMATS = ["jsonl", "csv", "parquet"]

GOOD_EVENT = {"user_id": "u", "feature": "bills", "occurred_at": NOON, "text": "t"}
GOOD_ITEM = {"item_id": "i", "title": "t", "updated_at": NOON}
GOOD_IMPRESSION = {"impression_id": "x", "user_id": "u", "item_id": "i", "shown_at": NOON, "label": "1"}

# What is changed in a good row, and the reason it must get; None: the row stays good.
CASES = {
    "behavior_events": (GOOD_EVENT, [
        ({}, None),
        ({"user_id": ""}, "missing_id"),
        ({"user_id": None}, "missing_id"),
        ({"feature": ""}, "missing_feature"),
        ({"occurred_at": "yesterday"}, "unreadable_time"),
        ({"occurred_at": "12:00"}, "unreadable_time"),
        ({"occurred_at": None}, "unreadable_time"),
        ({"occurred_at": "2024-03-11T00:00:00Z"}, "time_after_day"),
        ({"occurred_at": "2024-03-10T23:59:59.999999Z"}, None),
        ({"occurred_at": "2024-03-11T01:00:00+02:00"}, None),
        ({"occurred_at": "2024-03-07"}, None),  # late_days = 3: midnight three days back is the earliest
        ({"occurred_at": "2024-03-06T23:59:59"}, "too_late"),
        ({"occurred_at": "1710072000.25"}, None),  # 2024-03-10 12:00:00.25 UTC
        ({"occurred_at": "1.710072e9"}, None),
        ({"occurred_at": "1710072000000"}, "time_after_day"),  # milliseconds are not seconds
        ({"occurred_at": "9" * 40}, "unreadable_time"),
        ({"value": "2.5"}, None),
        ({"value": "many"}, "unreadable_number"),
        ({"value": "NaN"}, "unreadable_number"),
        ({"value": "1e999"}, "unreadable_number"),
        ({"value": "1d"}, "unreadable_number"),
        ({"text": " \t"}, "empty_text"),
        ({"text": "\u200e\u0001"}, None),  # U+200E is a format character, not a control
        ({"text": "\u0001"}, "empty_text"),
        ({"text": None}, "empty_text"),
    ]),
    "items": (GOOD_ITEM, [
        ({}, None),
        ({"item_id": ""}, "missing_id"),
        ({"updated_at": "2024-03-06"}, "too_late"),
        ({"updated_at": "2024-03-12"}, "time_after_day"),
        ({"updated_at": "soon"}, "unreadable_time"),
        ({"title": ""}, "empty_text"),
        ({"num_price": "x"}, "unreadable_number"),
        ({"num_price": "3"}, None),
    ]),
    "impressions": (GOOD_IMPRESSION, [
        ({}, None),
        ({"impression_id": ""}, "missing_id"),
        ({"user_id": None}, "missing_id"),
        ({"item_id": ""}, "missing_id"),
        ({"shown_at": "x"}, "unreadable_time"),
        ({"shown_at": "2024-03-01"}, "too_late"),
        ({"shown_at": "2024-03-11"}, "time_after_day"),
        ({"label_known_at": "later"}, "unreadable_time"),
        ({"label_known_at": "2024-04-01"}, None),
        ({"label": "1.0"}, None),
        ({"label": "true"}, None),
        ({"label": "False"}, None),
        ({"label": "true and more"}, "bad_label"),
        ({"label_buys": "TRUE"}, None),
        ({"label": "2"}, "bad_label"),
        ({"label": "0.5"}, "bad_label"),
        ({"label": "yes"}, "bad_label"),
        ({"label": None}, "bad_label"),
        ({"label_buys": "3"}, None),
        ({"label_buys": "3.5"}, "bad_label"),
        ({"num_hour": "inf"}, "unreadable_number"),
        ({"cat_device": ""}, None),
    ]),
}  # fmt: skip


def judged_pieces(landing, source, day=DAY):
    pieces = pieces_of(str(landing.folder), source, [day])
    return [(piece, part) for piece in pieces for part in judge_piece(piece, late_days=3)]


def judged(landing, source):
    """Good rows and refused rows alike, each with its file's name."""
    rows = []
    for piece, of in judged_pieces(landing, source):
        rows += [{"source_file": piece.file_name, "reason": None, "raw": None} | row for row in of.good.to_pylist()]
        rows += of.refused.to_pylist()
        assert len(of.rows) == len(of.good) + len(of.refused)
    return rows


def settled(spark, plan_of, landing, tmp_path, source, *, is_small=True):
    with settled_landing(spark, plan_of(landing, tmp_path, DAY, is_small=is_small), [source]) as sources:
        counts = count_rows(sources, days={source: [DAY]})[source][DAY]
        kept, refused = sources[source].kept, sources[source].quarantined
        rows = [row for table in rows_in(kept) for row in table.to_pylist()]
        return counts, rows, (refused if is_small else refused.toArrow()).to_pylist()


@pytest.mark.parametrize("source", CASES)
def test_every_broken_row_gets_its_reason_in_each_format(landing, source):
    good, cases = CASES[source]
    rows = [{**good, **change} for change, _ in cases]
    for form in FORMATS:
        landing.rows(source, DAY, rows, form=form, name=form)
    found = judged(landing, source)
    wanted = Counter(reason for _, reason in cases)
    for form in FORMATS:
        assert Counter(r["reason"] for r in found if r["source_file"] == f"{form}.{form}") == wanted, form


def test_broken_json_lines(landing):
    good = '{"user_id":"u","feature":"f","occurred_at":"2024-03-10","text":"t"}'
    lines = {
        good: None,
        good + " rubbish": "malformed_json",
        good + good: "malformed_json",
        good + "," + good: "malformed_json",
        good + "]": "malformed_json",
        good[:-5]: "malformed_json",
        good[:-1]: "malformed_json",
        "[1, 2]": "malformed_json",
        '"text"': "malformed_json",
        "null": "malformed_json",
        "[" + good + "]": "malformed_json",
        '{"user_id":"a","user_id":"u","feature":"f","occurred_at":"2024-03-10","text":"again"}': None,
        '{"user_id":7,"feature":"f","occurred_at":1710028800,"text":"number"}': None,
        "{}": "missing_id",
    }
    content = b"\xef\xbb\xbf" + "\n".join(lines).encode() + b'\r\n\n   \n{"user_id":"\xff\xfe"}\n'
    landing.raw("behavior_events", DAY, "a.jsonl", content)
    rows = judged(landing, "behavior_events")
    assert len(rows) == len(lines) + 1  # blank lines are not rows
    refused = {line: reason for line, reason in lines.items() if reason}
    assert {r["raw"]: r["reason"] for r in rows if r["reason"] not in (None, "invalid_utf8")} == refused
    assert [r["raw"] for r in rows if r["reason"] == "invalid_utf8"] == ['{"user_id":"\ufffd\ufffd"}']
    assert {r["user_id"] for r in rows if r["reason"] is None} == {"u", "7"}  # the last of a repeated key counts


def test_broken_csv_rows_and_files_with_different_headers(landing):
    first = b'user_id,feature,occurred_at,text\nu1,f,2024-03-10,"two\nlines, and a ""quote"""\nu2,f,2024-03-10\nu3,f,2024-03-10,t,more\n\nu4,f,2024-03-10,\xff\n'
    second = "\ufefftext,user_id,occurred_at,feature\ncafé,u5,2024-03-10,f\n".encode()
    landing.raw("behavior_events", DAY, "a.csv", first)
    landing.raw("behavior_events", DAY, "b.csv", second)
    landing.raw("behavior_events", DAY, "empty.csv", b"")
    rows = judged(landing, "behavior_events")
    good = {r["user_id"]: r["text"] for r in rows if r["reason"] is None}
    assert good == {"u1": 'two lines, and a "quote"', "u5": "café"}
    assert sorted(r["reason"] for r in rows if r["reason"]) == ["invalid_utf8", "malformed_csv", "malformed_csv"]
    assert {r["raw"] for r in rows if r["reason"] == "malformed_csv"} == {"u2,f,2024-03-10", "u3,f,2024-03-10,t,more"}


def test_parquet_times_numbers_and_ids_of_any_type(landing):
    noon = datetime(2024, 3, 10, 12, tzinfo=UTC)
    columns = {
        "impression_id": pa.array([1, 2], pa.int64()),
        "user_id": pa.array(["a", "b"]),
        "item_id": pa.array([10, 11], pa.int32()),
        "label": pa.array([1.0, 0.0], pa.float64()),
        "num_hour": pa.array([12, None], pa.int8()),
    }
    micros = pa.array([noon, noon], pa.timestamp("us", "UTC"))
    for n, times in enumerate([micros, micros.cast(pa.timestamp("ns")), pa.array([1710072000.0, 1710072000.0])]):
        table = pa.table({**columns, "shown_at": times, "impression_id": pa.array([2 * n, 2 * n + 1])})
        landing.raw("impressions", DAY, f"{n}.parquet", b"")
        pq.write_table(table, landing.folder / "impressions" / f"dt={DAY}" / f"{n}.parquet")
    rows = judged(landing, "impressions")
    assert len(rows) == 6
    assert {(r["reason"], r["shown_at"]) for r in rows} == {(None, noon)}
    assert {(r["item_id"], r["label"], dict(r["num"]).get("hour")) for r in rows} == {("10", 1, 12.0), ("11", 0, None)}


@pytest.mark.parametrize("form", FORMATS)
def test_labels_that_are_true_or_false_are_one_or_zero(landing, form):
    labels = [(True, None), (False, True), (None, False)]
    rows = [
        {**GOOD_IMPRESSION, "impression_id": f"x{n}", "label": label, "label_buys": buys}
        for n, (label, buys) in enumerate(labels)
    ]
    landing.rows("impressions", DAY, rows, form=form)
    found = judged(landing, "impressions")
    assert [(r["label"], dict(r["labels"])) for r in found if not r["reason"]] == [(1, {}), (0, {"buys": 1})]
    assert [r["reason"] for r in found if r["reason"]] == ["bad_label"]


def test_true_is_no_number_elsewhere(landing):
    landing.rows("items", DAY, [{**GOOD_ITEM, "num_price": True}])
    assert [row["reason"] for row in judged(landing, "items")] == ["unreadable_number"]


@pytest.mark.spark
@pytest.mark.parametrize("is_small", [True, False])
def test_duplicates_are_counted_across_formats_and_refused_rows_are_not_merged(
    spark, plan_of, landing, tmp_path, is_small
):
    other = {**GOOD_EVENT, "text": " t ", "occurred_at": "2024-03-10 12:00:00"}  # the same event, written otherwise
    landing.rows("behavior_events", DAY, [GOOD_EVENT, GOOD_EVENT, {**GOOD_EVENT, "item_id": "i"}], form="jsonl")
    landing.rows(
        "behavior_events",
        DAY,
        [other, {**GOOD_EVENT, "user_id": ""}, {**GOOD_EVENT, "user_id": "", "extra": 1}],
        form="csv",
    )
    counts, *_ = settled(spark, plan_of, landing, tmp_path, "behavior_events", is_small=is_small)
    assert counts == {
        "landed": 6,
        "rows": 2,
        "duplicates": 2,
        "quarantined": 2,
        "reasons": {"missing_id": 2},
        "unknown_columns": ["extra"],
    }


@pytest.mark.spark
@pytest.mark.parametrize("is_small", [True, False])
def test_all_versions_of_a_conflicting_impression_are_quarantined_and_equal_copies_are_not_a_conflict(
    spark, plan_of, landing, tmp_path, is_small
):
    same, differs = {**GOOD_IMPRESSION, "cat_a": "1", "num_b": 2}, {**GOOD_IMPRESSION, "impression_id": "y"}
    landing.rows("impressions", DAY, [same, {"num_b": 2.0, **same}, differs, differs, {**differs, "label": "0"}])
    counts, kept, refused = settled(spark, plan_of, landing, tmp_path, "impressions", is_small=is_small)
    assert (counts["landed"], counts["rows"], counts["duplicates"], counts["quarantined"]) == (5, 1, 1, 3)
    assert counts["reasons"] == {"conflicting_impression": 3}
    assert [(r["impression_id"], dict(r["cat"]), dict(r["num"]), r["copies"]) for r in kept] == [
        ("x", {"a": "1"}, {"b": 2.0}, 2)
    ]
    assert sorted('"0"' in r["raw"] for r in refused) == [False, False, True]
    assert not list(tmp_path.glob("_settled*"))


@pytest.mark.spark
def test_one_version_differs_in_a_map_alone(spark, plan_of, landing, tmp_path):
    landing.rows("impressions", DAY, [{**GOOD_IMPRESSION, "cat_a": "1"}, {**GOOD_IMPRESSION, "cat_b": "1"}])
    counts, kept, _ = settled(spark, plan_of, landing, tmp_path, "impressions")
    assert (kept, counts["reasons"]) == ([], {"conflicting_impression": 2})


def test_a_row_that_vanishes_on_the_way_stops_the_run():
    tally = {"dt": DAY, "reason": None, "rows": 1, "duplicates": 0, "quarantined": 0}
    with pytest.raises(RowsLostError, match="2 landed rows were read but 1"):
        count_rows({"items": SettledRows(None, None, [tally], 2, [])}, days={"items": [DAY]})


def test_parquet_columns_of_their_own_types_are_judged_as_their_text_would_be(landing):
    noon = datetime(2024, 3, 10, 12, tzinfo=UTC)
    cases = [
        ({}, None),
        ({"value": float("nan")}, "unreadable_number"),
        ({"value": float("-inf")}, "unreadable_number"),
        ({"value": None}, None),
        ({"user_id": "  "}, "missing_id"),
        ({"occurred_at": datetime(2024, 3, 11, tzinfo=UTC)}, "time_after_day"),
        ({"occurred_at": datetime(2024, 3, 6, 23, tzinfo=UTC)}, "too_late"),
        ({"occurred_at": None}, "unreadable_time"),
        ({"text": "e\u0301 \t t"}, None),
        ({"text": " t   t "}, None),
        ({"text": ""}, "empty_text"),
    ]
    good = {"user_id": "u", "feature": "f", "occurred_at": noon, "text": "t", "value": 2.5, "extra": 1}
    columns = {name: [({**good, **change})[name] for change, _ in cases] for name in good}
    text = pa.array([*columns["text"], "?"]).cast(pa.binary())
    broken = pa.array([b"\xff" if value == b"?" else value for value in text.to_pylist()], pa.binary())
    table = pa.table({name: [*values, values[0]] for name, values in columns.items()})
    # As text, but not valid: what a careless writer makes.
    as_text = pa.StringArray.from_buffers(len(broken), *broken.buffers()[1:], broken.buffers()[0])
    table = table.set_column(table.column_names.index("text"), "text", as_text)
    landing.raw("behavior_events", DAY, "a.parquet", b"")
    pq.write_table(table, landing.folder / "behavior_events" / f"dt={DAY}" / "a.parquet")
    rows = judged(landing, "behavior_events")
    assert Counter(row["reason"] for row in rows) == Counter([reason for _, reason in cases] + ["invalid_utf8"])
    assert {row["text"] for row in rows if row["reason"] is None} == {"t", "é t", "t t"}
    assert {row["value"] for row in rows if row["reason"] is None} == {2.5, None}
    assert [of.unknown for _, of in judged_pieces(landing, "behavior_events")] == [{"extra"}]
    refused = [row for row in rows if row["reason"] == "time_after_day"]
    assert '"occurred_at":"2024-03-11 00:00:00"' in refused[0]["raw"]
    assert all(row["raw"] is None for row in rows if row["reason"] is None)
