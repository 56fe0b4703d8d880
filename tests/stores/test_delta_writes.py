"""A write is whole or not there, replaces what it says, and refuses what does not fit."""

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from written_events import D1, D2, events, users_in, write_events

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores import delta_writes
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table, table_uri, table_version
from bahe_tasks.stores.delta_writes import RowsRefusedError, replace_partitions
from bahe_tasks.stores.partition_records import partition_records

SAMPLES = {
    "string": "é",
    "int": 3,
    "double": 0.1,
    "boolean": True,
    "binary": b"\x00\xff",
    "date": D1,
    "timestamp": datetime(2013, 9, 24, 23, 59, 59, 999999, tzinfo=UTC),
    "array<string>": ["a", None],
    "array<double>": [1.5, None],
    "array<timestamp>": [datetime(2013, 9, 24, 1, tzinfo=UTC)],
    "map<string,string>": [("genre", "drama")],
    "map<string,double>": [("price", 2.5), ("age", None)],
    "map<string,int>": [("bills", 7)],
    "bigint": 2**60 - 1,
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_rows_of_every_table_come_back_as_written(tmp_path, name):
    row = {column: SAMPLES[kind] for column, kind in TABLES[name].columns}
    empty = {column: None if column not in TABLES[name].partition_columns else row[column] for column in row}
    rows = pa.Table.from_pylist([row, empty], schema=arrow_schema(name))
    by = {column: row[column] for column in TABLES[name].partition_columns}
    predicate = " AND ".join(
        f"{column} = {value!r}" if isinstance(value, int) else f"{column} = '{value}'" for column, value in by.items()
    )
    replace_partitions(tmp_path, name, rows, predicate=predicate or "true", partitions={})
    read = read_table(tmp_path, name)
    assert read.schema == arrow_schema(name)
    assert sorted(read.to_pylist(), key=str) == sorted([row, empty], key=str)


def test_a_new_table_is_one_that_spark_can_write_and_whose_commits_are_kept(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    table = DeltaTable(table_uri(tmp_path, "behavior_events"))
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert table.metadata().partition_columns == ["dt"]
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 36500 days"


def test_writing_a_day_again_leaves_the_same_rows_and_other_days_alone(tmp_path):
    write_events(tmp_path, D1, ["u1", "u2"])
    write_events(tmp_path, D2, ["u3"])
    version = write_events(tmp_path, D1, ["u1", "u2"])
    assert version == table_version(tmp_path, "behavior_events")
    assert users_in(tmp_path) == ["u1", "u2", "u3"]


def test_no_rows_empty_the_partition_and_are_recorded(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    write_events(tmp_path, D1, [], fingerprint="f2")
    write_events(tmp_path, D2, [], fingerprint="f3")
    assert users_in(tmp_path) == []
    records = partition_records(tmp_path, "behavior_events")
    assert {key: (r.input_fingerprint, r.counts) for key, r in records.items()} == {
        "2013-09-24": ("f2", {"rows": 0}),
        "2013-09-25": ("f3", {"rows": 0}),
    }


@pytest.mark.parametrize("day", [D2, None])
def test_a_row_outside_the_predicate_is_refused_and_nothing_changes(tmp_path, day):
    version = write_events(tmp_path, D1, ["u1"])
    with pytest.raises(RowsRefusedError, match="outside dt = '2013-09-24'"):
        replace_partitions(tmp_path, "behavior_events", events(day, ["u9"]), predicate=f"dt = '{D1}'", partitions={})
    assert users_in(tmp_path) == ["u1"]
    assert table_version(tmp_path, "behavior_events") == version


def test_rows_without_the_tables_columns_are_refused(tmp_path):
    with pytest.raises(RowsRefusedError, match="do not have the columns of items"):
        replace_partitions(tmp_path, "items", events(D1, ["u1"]), predicate=f"dt = '{D1}'", partitions={})


def test_rows_given_part_by_part_are_one_commit_and_none_empty_the_partition(tmp_path):
    def replace(*tables):
        record = {str(D1): {"input_fingerprint": "f", "counts": {}}}
        return replace_partitions(
            tmp_path, "behavior_events", lambda: iter(tables), predicate=f"dt = '{D1}'", partitions=record
        )

    first = write_events(tmp_path, D1, ["u0"])
    assert replace(events(D1, ["u1"]), events(D1, ["u2"])) == first + 1
    assert users_in(tmp_path) == ["u1", "u2"]
    with pytest.raises(RowsRefusedError, match="outside"):
        replace(events(D1, ["u3"]), events(D2, ["u4"]))
    with pytest.raises(RowsRefusedError, match="do not have the columns of behavior_events"):
        replace(events(D1, ["u3"]), pa.table({"a": [1]}))
    assert users_in(tmp_path) == ["u1", "u2"]
    assert replace() == first + 2
    assert users_in(tmp_path) == []
    assert partition_records(tmp_path, "behavior_events")[str(D1)].input_fingerprint == "f"


def test_an_error_while_rows_are_made_is_the_one_that_is_raised(tmp_path):
    def failing():
        yield events(D1, ["u1"])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replace_partitions(tmp_path, "behavior_events", failing, predicate=f"dt = '{D1}'", partitions={})
    assert table_version(tmp_path, "behavior_events") in (None, 0)


def test_writers_of_different_days_do_not_disturb_each_other(tmp_path):
    days = [date(2013, 9, day) for day in range(1, 7)]
    failures = []
    all_ready = threading.Barrier(len(days))  # all find no table and create it at once

    def write(day):
        all_ready.wait()
        try:
            write_events(tmp_path, day, [f"u{day.day}"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(day,)) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert users_in(tmp_path) == [f"u{day.day}" for day in days]
    assert len(partition_records(tmp_path, "behavior_events")) == len(days)


def test_a_lost_race_is_tried_again(tmp_path, monkeypatch):
    tries = []

    def lose_once(*args, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            raise CommitFailedError("another writer was first")
        return write_deltalake(*args, **kwargs)

    monkeypatch.setattr(delta_writes, "write_deltalake", lose_once)
    write_events(tmp_path, D1, ["u1"])
    assert len(tries) == 2
    assert users_in(tmp_path) == ["u1"]


_WRITE_FOR_EVER = """
import sys
from datetime import date
import pyarrow as pa
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
day, turn = date(2013, 9, 24), 0
while True:
    turn += 1
    rows = pa.Table.from_pylist([{"dt": day, "user_id": str(turn)}] * 20000, schema=arrow_schema("behavior_events"))
    entry = {"input_fingerprint": str(turn), "counts": {"rows": 20000}}
    replace_partitions(sys.argv[1], "behavior_events", rows, predicate=f"dt = '{day}'", partitions={str(day): entry})
"""


@pytest.mark.parametrize("pause_s", [0.0, 0.03, 0.07])
def test_a_killed_write_leaves_one_whole_version(tmp_path, pause_s):
    writer = subprocess.Popen([sys.executable, "-c", _WRITE_FOR_EVER, str(tmp_path)])
    try:
        while (table_version(tmp_path, "behavior_events") or 0) < 2:
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(pause_s)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    found = read_table(tmp_path, "behavior_events", columns=["user_id"])["user_id"].to_pylist()
    turn = partition_records(tmp_path, "behavior_events")["2013-09-24"].input_fingerprint
    assert found == [turn] * 20000
    write_events(tmp_path, D1, ["u1"])
    assert users_in(tmp_path) == ["u1"]
