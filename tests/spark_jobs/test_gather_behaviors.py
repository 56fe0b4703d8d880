"""What is new of the behaviors that a run meets, and what the dictionary lacks; no Spark."""

from __future__ import annotations

from datetime import date
from random import Random

import pyarrow as pa
import pytest

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions
from spark_jobs import gather_behaviors as module
from spark_jobs.derived import met_behaviors
from spark_jobs.derived.met_behaviors import MET, distinct_behaviors, landed_behaviors
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.steps import part_of, rows_in
from spark_jobs.gather_behaviors import gather_behaviors

DAY = date(2024, 3, 14)


@pytest.fixture(params=["keys at once", "keys group by group"])
def plan(request, plan_of, landing, tmp_path, monkeypatch):
    if request.param == "keys group by group":
        monkeypatch.setattr(module, "KEYS_AT_ONCE", 2)
    return plan_of(landing, tmp_path / "tables", DAY)


def met(*rows):
    """Parts of one row each."""
    return [part_of(pa.Table.from_pylist([dict(zip(MET.names, row, strict=True))], schema=MET)) for row in rows]


def known(plan, *texts):
    """Put texts in the dictionary, each in a file of its own."""
    for key, text in texts:
        append_rows(
            plan.tables_dir, "atomic_behaviors", pa.table({"behavior_key": [key], "text": [text]}), partitions={}
        )


def embedded(plan, key, *, day, encoder_version=None):
    version = encoder_version or plan.encoder_version
    rows = {"encoder_version": [version], "dt": [day], "behavior_key": [key], "embedding": [b"\0\0"]}
    predicate = f"encoder_version = '{version}' AND dt = '{day}'"
    replace_partitions(plan.tables_dir, "behavior_embeddings", pa.table(rows), predicate=predicate, partitions={})


def pairs(parts):
    return sorted(
        (row["behavior_key"], row["text"]) for rows in rows_in(parts) for row in rows.to_pylist()
    )  # fmt: skip


def test_texts_that_landed_and_are_not_in_the_dictionary_are_to_be_written(plan):
    known(plan, ("a", "A"), ("c", "C"), ("x", "X"))
    parts = met(("a", "A", True), ("b", "B", True), ("c", "C", False), ("d", "D", False), ("e", None, True))
    found = gather_behaviors(plan, parts)
    assert pairs(found.unwritten) == [("b", "B"), ("d", "D")]


def test_needed_keys_without_an_embedding_of_another_day_and_this_encoder_are_new(plan):
    known(plan, ("e", "E"))
    embedded(plan, "a", day=date(2024, 3, 1))
    embedded(plan, "b", day=DAY)  # by this very day
    embedded(plan, "c", day=date(2024, 3, 2), encoder_version="another")
    parts = met(("a", "A", True), ("b", "B", True), ("c", "C", True), ("d", "D", False), ("e", None, True))
    found = gather_behaviors(plan, parts)
    assert pairs(found.new) == [("b", "B"), ("c", "C"), ("e", "E")]  # e is of a history, its text in the dictionary
    assert (found.num_needed, found.num_new, found.num_without_text) == (4, 3, 0)
    assert {row["dt"] for rows in rows_in(found.new) for row in rows.to_pylist()} == {DAY}


def test_a_new_behavior_without_a_text_anywhere_is_counted(plan):
    found = gather_behaviors(plan, met(("a", "A", True), ("b", None, True)))
    assert (found.num_new, found.num_without_text) == (2, 1)
    assert pairs(found.new) == [("a", "A"), ("b", None)]


def test_a_text_that_stands_twice_in_the_dictionary_is_one(plan):
    known(plan, ("a", "A"), ("a", "A"))
    found = gather_behaviors(plan, met(("a", None, True), ("b", None, True)))
    assert (found.num_new, found.num_without_text) == (2, 1)
    assert pairs(found.new) == [("a", "A"), ("b", None)]


def test_nothing_met_is_nothing_new(plan):
    assert gather_behaviors(plan, []) == ([], [], 0, 0, 0)


def test_keys_that_begin_alike_are_told_apart(plan):
    keys = [f"{n:08x}".ljust(64, "0") for n in range(500)]
    alike = [key[:-1] + "1" for key in keys]  # the same first digits, another key
    table = pa.table({"behavior_key": keys[:300] + alike[300:], "text": ["t"] * 500})
    append_rows(plan.tables_dir, "atomic_behaviors", table, partitions={})
    rows = pa.table([keys[200:400], ["t"] * 200, [True] * 200], schema=MET)
    assert pairs(gather_behaviors(plan, [part_of(rows)]).unwritten) == [(key, "t") for key in keys[300:400]]


def test_of_many_days_of_the_same_keys_few_are_held(plan, monkeypatch):
    held, distinct = [], met_behaviors._distinct
    monkeypatch.setattr(met_behaviors, "_ROWS_HELD", 0)
    monkeypatch.setattr(met_behaviors, "_distinct", lambda keys, *of: held.append(len(keys)) or distinct(keys, *of))
    keys = [behavior_key(str(n)) for n in range(100)]
    days = [part_of(pa.table([keys, [str(day)] * 100, [day > 0] * 100], schema=MET)) for day in range(40)]
    (rows,) = rows_in(distinct_behaviors(Here(plan.tables_dir, {}), days))
    assert rows.to_pylist() == [{"behavior_key": key, "text": "39", "is_needed": True} for key in sorted(keys)]
    assert max(held) <= 400


def test_a_text_that_landed_in_many_rows_is_met_once_and_needed_if_one_of_them_is_of_the_day(plan):
    random, texts = Random(4), [f"text {n}" for n in range(20)]
    landed = [
        {"dt": random.choice([DAY, date(2024, 3, 13)]), "behavior_key": behavior_key(text), "text": text}
        for text in random.choices(texts, k=60)
    ]
    events = pa.Table.from_pylist(landed, schema=pa.schema([("dt", pa.date32()), *list(MET)[:2]]))
    run = Here(plan.tables_dir, {"behavior_events": events})
    for needed_of in (DAY, None):
        rows = list(rows_in(distinct_behaviors(run, landed_behaviors(run, needed_of=needed_of))))
        assert [row for part in rows for row in part.to_pylist()] == [
            {"behavior_key": key, "text": text, "is_needed": (needed_of, key) in {(r["dt"], r["behavior_key"]) for r in landed}}
            for key, text in sorted({(row["behavior_key"], row["text"]) for row in landed})
        ]  # fmt: skip
