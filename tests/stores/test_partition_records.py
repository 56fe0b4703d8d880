"""The newest commit that names a partition tells its state."""

import shutil
from datetime import UTC

from deltalake import DeltaTable, write_deltalake
from written_events import D1, D2, events, write_events

from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.partition_records import partition_records


def test_the_newest_commit_naming_a_partition_tells_its_state(tmp_path):
    write_events(tmp_path, D1, ["u1"], fingerprint="old")
    write_events(tmp_path, D2, ["u2"])
    version = write_events(tmp_path, D1, ["u1", "u2"], fingerprint="new")
    record = partition_records(tmp_path, "behavior_events")["2013-09-24"]
    assert (record.version, record.input_fingerprint, record.counts) == (version, "new", {"rows": 2})
    assert record.timestamp.tzinfo == UTC


def test_commits_without_our_document_say_nothing(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    write_deltalake(table_uri(tmp_path, "behavior_events"), events(D2, ["u2"]), mode="append")
    assert set(partition_records(tmp_path, "behavior_events")) == {"2013-09-24"}


def test_only_commits_not_seen_before_are_read(tmp_path, monkeypatch):
    asked = []
    history = DeltaTable.history
    monkeypatch.setattr(DeltaTable, "history", lambda self, limit=None: asked.append(limit) or history(self, limit))
    write_events(tmp_path, D1, ["u1"])  # version 1; version 0 creates the table
    partition_records(tmp_path, "behavior_events")
    partition_records(tmp_path, "behavior_events")
    write_events(tmp_path, D2, ["u2"])
    assert set(partition_records(tmp_path, "behavior_events")) == {"2013-09-24", "2013-09-25"}
    assert asked == [2, 1]


def test_a_table_deleted_and_made_again_starts_without_records(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    partition_records(tmp_path, "behavior_events")
    shutil.rmtree(table_uri(tmp_path, "behavior_events"))
    write_events(tmp_path, D2, ["u2"])
    assert set(partition_records(tmp_path, "behavior_events")) == {"2013-09-25"}


def test_changing_the_answer_does_not_change_the_next_one(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    partition_records(tmp_path, "behavior_events").clear()
    assert set(partition_records(tmp_path, "behavior_events")) == {"2013-09-24"}
