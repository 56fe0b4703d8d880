"""What a file of pairs says of items and situations, over what is known of the items."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.stages.pair_file import ScoreFileError, check_columns, read_pairs, write_pairs
from bahe_tasks.stages.pair_items import given_titles, pair_columns
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.read_json_lines import read_json_lines


def test_what_the_file_says_wins_and_an_empty_text_says_nothing():
    known = {"i": {"cat": {"place": "shelf"}, "num": {"price": 2.0}}}
    frame = pd.DataFrame(
        {
            "user_id": "u",
            "item_id": ["i", "i", "i", "new"],
            "cat_place": ["top", "", None, ""],
            "cat_paid": [True, "", False, None],
            "num_price": [1.0, np.nan, 3.0, np.nan],
        }
    )
    cat, num = pair_columns(frame, known)
    assert cat["place"].tolist() == ["top", "shelf", "shelf", None]
    assert cat["paid"].tolist() == ["true", None, "false", None]
    np.testing.assert_array_equal(num["price"], [1.0, 2.0, 3.0, np.nan])


def test_parquet_columns_with_gaps_are_read_as_they_landed(tmp_path):
    ids = {"user_id": [1, 2, 3], "item_id": ["i", "j", "k"]}
    columns = {"cat_zip": [94110, None, 7], "cat_paid": [True, None, False], "num_age": [30, None, 5]}
    pq.write_table(pa.table(ids | columns), tmp_path / "pairs.parquet")
    frame = read_pairs(tmp_path / "pairs.parquet")
    cat, num = pair_columns(frame, {})
    assert frame["user_id"].tolist() == ["1", "2", "3"]
    assert cat["zip"].tolist() == ["94110", None, "7"]
    assert cat["paid"].tolist() == ["true", None, "false"]
    np.testing.assert_array_equal(num["age"], [30.0, np.nan, 5.0])


def test_json_lines_are_read_as_they_landed(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '\ufeff{"user_id": 1.50, "item_id": 1e3, "cat_version": 1.10, "cat_cut": "e\\ud83c", "num_price": 1e1}\n',
        encoding="utf-8",
    )
    frame = read_pairs(path)
    cat, num = pair_columns(frame, {})
    assert frame[["user_id", "item_id"]].to_numpy().tolist() == [["1.50", "1e3"]]
    assert (cat["version"].tolist(), cat["cut"].tolist(), num["price"].tolist()) == (["1.10"], ["e"], [10.0])


def test_a_value_of_json_that_is_no_text_is_the_text_that_landed(tmp_path):
    path = tmp_path / "pairs.jsonl"
    values = ("true", "1", '"1"', "1.0", '[1, true, "\u00fc"]', '{"a": 1.10}')
    path.write_text(
        "".join(f'{{"user_id": {v}, "item_id": "{n}", "cat_c": {v}, "title": {v}}}\n' for n, v in enumerate(values)),
        encoding="utf-8",
    )
    frame = read_pairs(path)
    [landed] = read_json_lines(Piece("impressions", date(2024, 1, 1), str(path), 0, 10**6, 10**6))
    texts = landed.text("user_id").to_pylist()
    assert texts == ["true", "1", "1", "1.0", '[1,true,"ü"]', '{"a":1.1}']
    assert frame["user_id"].tolist() == texts
    assert pair_columns(frame, {})[0]["c"].tolist() == texts
    assert list(given_titles(frame).values()) == texts


def test_a_truth_of_parquet_is_the_id_that_landed(tmp_path):
    pq.write_table(pa.table({"user_id": [True, False], "item_id": ["i", "j"]}), tmp_path / "pairs.parquet")
    assert read_pairs(tmp_path / "pairs.parquet")["user_id"].tolist() == ["true", "false"]


def test_names_of_csv_columns_are_stripped_as_those_that_land(tmp_path):
    (tmp_path / "pairs.csv").write_text("user_id, item_id\nu,i\n")
    assert read_pairs(tmp_path / "pairs.csv").columns.tolist() == ["user_id", "item_id"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "user_id,item_id,num_price\nu,i,1\nu,i,abc\n", "num_price of row 2 is no number: 'abc'"),
        ("p.csv", "user_id,item_id,num_price\nu,i,inf\n", "num_price of row 1 is no number: 'inf'"),
        ("p.jsonl", '{"user_id": "u", "item_id": "i", "num_z": true}\n', "num_z of row 1 is no number: True"),
        ("p.jsonl", '{"user_id": "u", "item_id": "i"}\n{"user_id": \n', "line 2: "),
        ("p.csv", "user_id,item\nu,i\n", "has no column item_id; it has user_id, item"),
        ("p.jsonl", "", "has no column user_id; it has none"),
        ("s", "", "s: the ending must be one of .csv"),
        ("p.jsonl", "[1, 2]\n", "line 1 is no object"),
        ("p.csv", "user_id,item_id\nu,i,x\nv,j,y\n", "line 2 has 3 values, the header 2 names"),
        ("p.csv", "user_id,item_id\nu,i,\nv,j,\n", "line 2 has 3 values, the header 2 names"),
        ("p.csv", "user_id,item_id\nu,i\nv,j,y\n", "line 3 has 3 values, the header 2 names"),
        ("p.csv", 'user_id,item_id,title\n\nu,i,"a\nb"\n  \nv,j\n', "line 6 has 2 values, the header 3 names"),
        ("p.csv", 'user_id,item_id,title\nu,i,"a\nv,j,b\n', "EOF inside string"),
        ("p.csv", "", "No columns to parse"),
        ("p.csv", "user_id,item_id, item_id\nu,i,j\n", "has the column item_id twice"),
        ("p.csv", "user_id,item_id,user_id\nu,i,j\n", "has the column user_id twice"),
        ("p.jsonl", '{"user_id": "u\\ud83c", "item_id": "i"}\n', "line 1: half a surrogate pair in user_id"),
        ("p.jsonl", '{"user_id": "u", "item_id": ' + "[" * 100_000, "line 1: "),
        ("p.jsonl", '{"user_id": " ", "item_id": "i"}\n', "every row needs its user_id"),
    ],
)
def test_what_cannot_be_read_is_told_with_file_and_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ScoreFileError, match=f"{name}.*{message}") as error:
        read_pairs(tmp_path / name)
    assert str(error.value).count(f"{tmp_path / name}") == 1


def test_what_is_written_beside_the_probability_is_what_the_file_has(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"user_id": 1, "item_id": "i", "num_position": 3, "extra": {"a": 1.5}}\n')
    write_pairs(read_pairs(path), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"user_id":"1","item_id":"i","num_position":3,"extra":{"a":1.5}}\n'


def test_times_of_parquet_are_written_to_json_lines_as_the_landing_reads_them(tmp_path):
    shown = datetime(2024, 1, 1, 8, 15, 0, 250123, tzinfo=UTC)
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "shown_at": [shown]}), tmp_path / "pairs.parquet")
    write_pairs(read_pairs(tmp_path / "pairs.parquet"), tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["shown_at"] == "2024-01-01T08:15:00.250123Z"


@pytest.mark.parametrize("values", [("1", "[]"), ("{}",), ("18446744073709551616",)])
def test_what_parquet_cannot_hold_is_told_before_anything_is_scored(tmp_path, values):
    (tmp_path / "p.jsonl").write_text(
        "".join(f'{{"user_id": "u", "item_id": "i", "x": {value}}}\n' for value in values)
    )
    with pytest.raises(ScoreFileError, match=r"parquet cannot hold .*; write jsonl"):
        check_columns(read_pairs(tmp_path / "p.jsonl"), tmp_path / "out.parquet")
    check_columns(read_pairs(tmp_path / "p.jsonl"), tmp_path / "out.jsonl")


def test_columns_without_a_name_are_no_column_twice(tmp_path):
    (tmp_path / "pairs.csv").write_text("user_id,item_id,,\nu,i,,\n")
    assert read_pairs(tmp_path / "pairs.csv")[["user_id", "item_id"]].to_numpy().tolist() == [["u", "i"]]


def test_halves_of_surrogate_pairs_are_left_out_of_what_is_no_id(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"user_id": "u", "item_id": "i", "title": "a\\ud83c", "cat_\\ud83c": "b", "of": ["\\ud83c"], "note": "\\ud83c\\udf89"}\n'
    )
    for ending in (".jsonl", ".csv", ".parquet"):
        write_pairs(read_pairs(path), tmp_path / f"out{ending}")
    written = {"user_id": "u", "item_id": "i", "title": "a", "cat_?": "b", "of": [""], "note": "\U0001f389"}
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8")) == written


def test_texts_that_parquet_holds_as_bytes_are_texts_as_those_that_land(tmp_path):
    columns = {
        "user_id": [b"u1", "ü".encode()],
        "item_id": [b"i", b"j"],
        "title": [b"tea", b"jam"],
        "cat_kind": [b"food", None],
        "num_age": [b"1.5", b"2"],
    }
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    frame = read_pairs(tmp_path / "pairs.parquet")
    assert frame[["user_id", "item_id"]].to_numpy().tolist() == [["u1", "i"], ["ü", "j"]]
    cat, num = pair_columns(frame, {})
    assert (cat["kind"].tolist(), num["age"].tolist()) == (["food", None], [1.5, 2.0])
    assert given_titles(frame) == {"i": "tea", "j": "jam"}
    pq.write_table(pa.table({"user_id": [b"\xff"], "item_id": [b"i"]}), tmp_path / "pairs.parquet")
    with pytest.raises(ScoreFileError, match="cannot be read"):
        read_pairs(tmp_path / "pairs.parquet")


def test_whole_floats_of_parquet_are_the_ids_that_landed(tmp_path):
    columns = {"user_id": [1.0, 2.5], "item_id": [5.0, 6.0], "cat_zip": [94110.0, None], "num_age": [30.0, 2.0]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    frame = read_pairs(tmp_path / "pairs.parquet")
    assert frame[["user_id", "item_id"]].to_numpy().tolist() == [["1", "5"], ["2.5", "6"]]
    assert pair_columns(frame, {})[0]["zip"].tolist() == ["94110", None]
