"""Json lines, csv files and names that a careless writer makes: each row is judged by itself, and none of them stops a day."""

from __future__ import annotations

import json
import os
from datetime import date

import pytest
from odd_landing import DAY, EVENT, good_and_reasons, judged

from bahe_tasks.behavior_key import canonical_text
from spark_jobs.landed import read_json_lines
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece, settle_rows
from spark_jobs.landing_files import UnreadableFileError


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


def test_two_columns_of_a_name_that_nobody_reads_are_ignored(landing):
    landing.raw("behavior_events", DAY, "a.csv", b"user_id,feature,occurred_at,text,a,a,,\nu,f,2024-03-10,one,1,2,,\n")
    good, reasons, _ = good_and_reasons(landing)
    assert ([row["text"] for row in good], reasons) == (["one"], {})


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
