"""Whole runs of the job: catch-up, excluded days, re-runs, a kill, and tables that delta-rs reads."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql.types import StructType

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.schemas import SOURCES, TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.partition_records import partition_records
from spark_jobs import write_day
from spark_jobs.dedup_behaviors import dedup_behaviors

DAY = date(2024, 3, 10)
NEXT, BEFORE, LONG_BEFORE = DAY + timedelta(days=1), DAY - timedelta(days=1), DAY - timedelta(days=5)
WRITTEN = (
    "behavior_events",
    "items",
    "impressions",
    "user_sequences",
    "running_sums",
    "new_behaviors",
    "atomic_behaviors",
    "quarantine",
)


def at(day: date, hour: int) -> str:
    return f"{day}T{hour:02}:00:00Z"


def event(day, hour, text, user="u"):
    return {"user_id": user, "feature": "bills", "occurred_at": at(day, hour), "text": text}


def impression(day, hour, number, item="i"):
    return {
        "impression_id": f"{day}-{number}",
        "user_id": "u",
        "item_id": item,
        "shown_at": at(day, hour),
        "label": number % 2,
        "extra": 1,
    }


def land(landing) -> None:
    landing.rows("items", LONG_BEFORE, [{"item_id": "i", "title": "a title", "updated_at": at(LONG_BEFORE, 1)}])
    landing.rows("behavior_events", LONG_BEFORE, [event(LONG_BEFORE, 1, "long ago")], form="csv")
    landing.rows("behavior_events", BEFORE, [event(BEFORE, 1, "yesterday"), event(BEFORE, 2, "")])
    landing.rows(
        "behavior_events", DAY, [event(DAY, 1, "morning"), event(DAY, 1, "morning"), event(DAY, 20, "evening")]
    )
    landing.rows("impressions", DAY, [impression(DAY, 12, 1), impression(DAY, 13, 2, item="unknown"), {"user_id": "u"}])
    landing.rows("behavior_events", NEXT, [event(NEXT, 1, "morning"), event(NEXT, 2, "brand new")], form="parquet")
    landing.rows("impressions", NEXT, [impression(NEXT, 12, 1)])


def content(tables_dir, day=None):
    """All rows of all written tables, in an order of their own; of one day if given."""
    found = {}
    for name in WRITTEN:
        rows = [json.dumps(row, sort_keys=True, default=str) for row in read_table(tables_dir, name).to_pylist()]
        found[name] = sorted(row for row in rows if day is None or f'"dt": "{day}"' in row)
    return found


def texts(tables_dir, name, day):
    return {row["text"] for row in read_table(tables_dir, name).to_pylist() if row.get("dt", day) == day}


@pytest.fixture(scope="module")
def two_days(spark, tmp_path_factory, new_landing, plan_of):
    """Two days run one after the other, the first of them taking in two earlier partitions."""
    home = tmp_path_factory.mktemp("two_days")
    landing, tables_dir = new_landing(home / "landing"), home / "tables"
    land(landing)
    first = plan_of(
        landing, tables_dir, DAY, catch_up={"behavior_events": [LONG_BEFORE, BEFORE], "items": [LONG_BEFORE]}
    )
    counts = dedup_behaviors(spark, first)
    second = plan_of(landing, tables_dir, NEXT)
    return landing, tables_dir, counts, second, dedup_behaviors(spark, second)


@pytest.mark.spark
def test_counts_of_the_day_are_returned_and_recorded_with_the_last_commit(two_days):
    _, tables_dir, counts, *_ = two_days
    assert counts["behavior_events"] == {
        "landed": 3,
        "rows": 2,
        "duplicates": 1,
        "quarantined": 0,
        "reasons": {},
        "unknown_columns": [],
    }
    assert counts["impressions"] == {
        "landed": 3,
        "rows": 2,
        "duplicates": 0,
        "quarantined": 1,
        "reasons": {"missing_id": 1},
        "unknown_columns": ["extra"],
    }
    assert counts["items"]["landed"] == 0
    # morning, evening; long ago and yesterday out of the history; the title of i
    assert (counts["needed_behaviors"], counts["new_behaviors"], counts["reuse_rate"]) == (5, 5, 0.0)
    assert (counts["sequences"], counts["capped_behaviors"]) == (1, 0)
    record = partition_records(tables_dir, "impressions")[str(DAY)]
    assert (record.counts, record.input_fingerprint) == (counts, f"stage-{DAY}")


@pytest.mark.spark
def test_earlier_partitions_go_each_into_their_own_dt_and_are_recorded(two_days):
    _, tables_dir, *_ = two_days
    assert {str(row["dt"]): row["text"] for row in read_table(tables_dir, "behavior_events").to_pylist() if row["dt"] < DAY} == {
        str(LONG_BEFORE): "long ago", str(BEFORE): "yesterday"}  # fmt: skip
    records = partition_records(tables_dir, "behavior_events")
    assert records[str(BEFORE)].input_fingerprint == f"behavior_events-{BEFORE}"
    assert records[str(BEFORE)].counts["reasons"] == {"empty_text": 1}
    quarantined = {
        (str(row["dt"]), row["source_table"], row["reason"]) for row in read_table(tables_dir, "quarantine").to_pylist()
    }
    assert quarantined == {(str(BEFORE), "behavior_events", "empty_text"), (str(DAY), "impressions", "missing_id")}


@pytest.mark.spark
def test_an_impression_knows_its_item_and_where_its_history_ends(two_days):
    _, tables_dir, *_ = two_days
    rows = {row["impression_id"]: row for row in read_table(tables_dir, "impressions").to_pylist()}
    first, unknown, next_day = (rows[f"{d}-{n}"] for d, n in ((DAY, 1), (DAY, 2), (NEXT, 1)))
    assert first["title_key"] == next_day["title_key"] == behavior_key("a title")
    assert unknown["title_key"] is None
    # long ago, yesterday, morning; the day after also evening, morning and brand new
    assert (dict(first["sequence_ends"]), dict(next_day["sequence_ends"])) == ({"bills": 3}, {"bills": 6})


@pytest.mark.spark
def test_new_behaviors_are_needed_ones_without_an_embedding_and_the_dictionary_holds_each_text_once(two_days):
    _, tables_dir, *_ = two_days
    assert texts(tables_dir, "new_behaviors", DAY) == {"long ago", "yesterday", "morning", "evening", "a title"}
    dictionary = read_table(tables_dir, "atomic_behaviors").to_pylist()
    assert sorted(row["text"] for row in dictionary) == [
        "a title",
        "brand new",
        "evening",
        "long ago",
        "morning",
        "yesterday",
    ]
    assert all(row["behavior_key"] == behavior_key(row["text"]) for row in dictionary)


@pytest.mark.spark
def test_tables_have_the_columns_and_protocol_that_delta_rs_writes_too(spark, two_days):
    _, tables_dir, *_ = two_days
    for name in WRITTEN:
        table = DeltaTable(tables_dir / name)
        assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
        assert table.metadata().partition_columns == list(TABLES[name].partition_columns)
        assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 36500 days"
        assert (
            StructType.fromJson(json.loads(table.schema().to_json()))
            == spark.createDataFrame([], TABLES[name].ddl).schema
        )


@pytest.mark.spark
def test_running_a_day_again_after_it_was_killed_before_its_last_commits_changes_nothing(spark, two_days, monkeypatch):
    _, tables_dir, _, plan, counts = two_days
    before = content(tables_dir)
    real = write_day.overwrite_partitions

    def killed(rows, **arguments):
        if arguments["name"] in ("impressions", "user_sequences"):
            raise KeyboardInterrupt
        real(rows, **arguments)

    monkeypatch.setattr(write_day, "overwrite_partitions", killed)
    with pytest.raises(KeyboardInterrupt):
        dedup_behaviors(spark, plan)
    monkeypatch.undo()
    assert dedup_behaviors(spark, plan) == counts
    assert content(tables_dir) == before


@pytest.mark.spark
@pytest.mark.parametrize("table", ["behavior_events", "running_sums", "impressions"])
def test_a_day_killed_at_any_commit_that_others_read_says_that_it_was_begun(
    spark, two_days, plan_of, monkeypatch, tmp_path, table
):
    real = write_day.overwrite_partitions

    def killed(rows, **arguments):
        if arguments["name"] == table:
            raise KeyboardInterrupt
        real(rows, **arguments)

    monkeypatch.setattr(write_day, "overwrite_partitions", killed)
    plan = plan_of(two_days[0], tmp_path / "tables", DAY)
    with pytest.raises(KeyboardInterrupt):
        dedup_behaviors(spark, plan)
    assert partition_records(plan.tables_dir, "user_sequences")[str(DAY)].input_fingerprint == plan.input_fingerprint
    assert str(DAY) not in partition_records(plan.tables_dir, "impressions")


@pytest.mark.spark
def test_few_rows_and_many_are_written_alike(spark, two_days, plan_of, tmp_path):
    landing, tables_dir, *_ = two_days
    catch_up = {"behavior_events": [LONG_BEFORE, BEFORE], "items": [LONG_BEFORE]}
    dedup_behaviors(spark, plan_of(landing, tmp_path, DAY, catch_up=catch_up, is_small=False))
    few, many = content(tables_dir, DAY), content(tmp_path, DAY)
    del few["atomic_behaviors"], many["atomic_behaviors"]  # has no day
    assert many == few
    for name in WRITTEN:
        recorded = [partition_records(folder, name).get(str(DAY)) for folder in (tables_dir, tmp_path)]
        assert recorded[0].counts == recorded[1].counts


@pytest.mark.spark
def test_excluded_days_are_not_read_and_embeddings_of_this_day_do_not_lower_new(spark, two_days, plan_of):
    landing, tables_dir, *_ = two_days

    for dt, text in ((DAY, "morning"), (NEXT, "brand new")):
        row = {"encoder_version": "enc-test", "dt": dt, "behavior_key": behavior_key(text), "embedding": b"\0\0"}
        replace_partitions(
            tables_dir, "behavior_embeddings", pa.Table.from_pylist([row], schema=arrow_schema("behavior_embeddings")),
            predicate=f"dt = '{dt}' AND encoder_version = 'enc-test'", partitions={},
        )  # fmt: skip
    changed = plan_of(landing, tables_dir, NEXT, excluded_days=frozenset({DAY, LONG_BEFORE}))
    again = dedup_behaviors(spark, changed)
    # yesterday, morning, brand new; the item landed on an excluded day
    assert (again["needed_behaviors"], again["new_behaviors"], again["reuse_rate"]) == (3, 2, 1 - 2 / 3)
    assert texts(tables_dir, "new_behaviors", NEXT) == {"yesterday", "brand new"}
    assert [row["title_key"] for row in read_table(tables_dir, "impressions").to_pylist() if row["dt"] == NEXT] == [
        None
    ]


@pytest.mark.spark
def test_a_day_without_impressions_leaves_empty_recorded_partitions(spark, landing, plan_of, tmp_path):
    landing.rows("behavior_events", DAY, [event(DAY, 1, "alone")])
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path / "tables", DAY))
    assert (counts["impressions"]["landed"], counts["sequences"], counts["new_behaviors"]) == (0, 0, 1)
    for source in SOURCES:
        assert str(DAY) in partition_records(tmp_path / "tables", source)
    assert read_table(tmp_path / "tables", "impressions").num_rows == 0
    assert not (tmp_path / "tables" / "quarantine").exists()
