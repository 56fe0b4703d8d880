"""Rows, files and versions of a table are read as they were written."""

import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from written_events import D1, D2, D3, events, users_in, write_events

from bahe_tasks.stores import held_files
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import (
    read_batches,
    read_table,
    scan_table,
    table_identity,
    table_uri,
    table_version,
)
from bahe_tasks.stores.held_files import small_files_held
from bahe_tasks.stores.partition_records import partition_records


def test_a_table_that_does_not_exist_is_empty(tmp_path):
    assert read_table(tmp_path, "impressions").schema == arrow_schema("impressions")
    assert read_table(tmp_path, "impressions", columns=["label", "dt"]).column_names == ["label", "dt"]
    assert table_version(tmp_path, "impressions") is None
    assert partition_records(tmp_path, "impressions") == {}


def test_an_older_version_can_be_read(tmp_path):
    old = write_events(tmp_path, D1, ["u1"])
    write_events(tmp_path, D1, ["u2"])
    assert users_in(tmp_path, version=old) == ["u1"]


def test_partitions_and_filters_narrow_what_is_read(tmp_path):
    for day, user in ((D1, "u1"), (D2, "u2"), (D3, "u3")):
        write_events(tmp_path, day, [user])
    assert users_in(tmp_path, partitions=f"dt >= '{D1}' AND dt < '{D3}'") == ["u1", "u2"]
    assert users_in(tmp_path, filters=pc.field("dt") > D2) == ["u3"]
    assert users_in(tmp_path, partitions=f"dt <= '{D2}'", filters=pc.field("user_id") == "u2") == ["u2"]


def test_batches_are_the_table_and_hold_a_part_of_it_each(tmp_path):
    users = [str(n) for n in range(20_000)]
    write_events(tmp_path, D1, users)
    write_events(tmp_path, D2, ["another day"])
    batches = list(read_batches(tmp_path, "behavior_events", columns=["user_id", "dt"], partitions=f"dt = '{D1}'"))
    assert pa.Table.from_batches(batches)["user_id"].to_pylist() == users
    assert len(batches) > 1
    assert list(read_batches(tmp_path, "impressions", columns=["label"])) == []


def test_rows_come_in_one_order_whichever_files_are_held(tmp_path, monkeypatch):
    for day, count in ((D2, 5), (D1, 5_000), (D3, 7)):
        write_events(tmp_path, day, [f"{day} {n}" for n in range(count)])
    monkeypatch.setattr(held_files, "_LARGEST_FILE", 10_000)
    read = {"columns": ["user_id"], "partitions": None}
    expected = pa.Table.from_batches(read_batches(tmp_path, "behavior_events", **read))["user_id"]

    def read_and_scanned():
        scanned = scan_table(tmp_path, "behavior_events", filters=None, **read)
        return read_table(tmp_path, "behavior_events", **read)["user_id"], pa.Table.from_batches(scanned)["user_id"]

    assert all(users.equals(expected) for users in read_and_scanned())
    with small_files_held():
        assert all(users.equals(expected) for users in read_and_scanned())
        assert len(held_files._held.rows) == 2
        assert all(users.equals(expected) for users in read_and_scanned())


def test_a_commit_and_a_table_made_anew_have_another_identity(tmp_path):
    seen = [table_identity(tmp_path, "behavior_events")]
    for _ in range(2):
        write_events(tmp_path, D1, ["u1"])
        seen += [table_identity(tmp_path, "behavior_events")] * 2
        shutil.rmtree(table_uri(tmp_path, "behavior_events"))
    write_events(tmp_path, D1, ["u1"])
    write_events(tmp_path, D1, ["u1"])
    seen += [table_identity(tmp_path, "behavior_events")] * 2
    assert seen[0] == ""
    assert len(set(seen)) == 4


def test_a_commit_of_another_is_seen_at_once_and_delta_is_asked_for_it_alone(tmp_path, monkeypatch):
    write_events(tmp_path, D1, ["u1"])
    assert users_in(tmp_path) == ["u1"]
    asked = []
    update = DeltaTable.update_incremental
    monkeypatch.setattr(DeltaTable, "update_incremental", lambda self: asked.append(1) or update(self))
    assert users_in(tmp_path) == ["u1"]
    assert asked == []
    write_deltalake(table_uri(tmp_path, "behavior_events"), events(D2, ["u2"]), mode="append")
    assert users_in(tmp_path) == ["u1", "u2"]
    assert asked == [1]


def test_a_process_that_read_a_table_ends_cleanly(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    code = (
        "import sys; from bahe_tasks.stores.delta_tables import read_table; read_table(sys.argv[1], 'behavior_events')"
    )
    for _ in range(4):  # with deltalake's own file system about every second one aborts at its exit
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
