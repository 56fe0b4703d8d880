"""A table whose log is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from written_events import D1, D2, events, users_in, write_events

from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.opened_tables import UnreadableTableError
from bahe_tasks.stores.partition_records import partition_records


@pytest.fixture
def table(tmp_path):
    """A table of two commits, the second of which was cut short, that this process has not opened."""
    uri = table_uri(tmp_path, "behavior_events")
    for day in (D1, D2):
        write_deltalake(uri, events(day, ["u1"]), mode="append")
    cut_short(uri)
    return uri


def cut_short(uri: str) -> None:
    """Cut the newest commit."""
    commit = max((Path(uri) / "_delta_log").glob("*.json"))
    commit.write_bytes(commit.read_bytes()[:-40])


def test_a_log_that_was_cut_short_is_told_with_the_table_and_without_a_stack(tmp_path, table):
    for read in (users_in, lambda folder: partition_records(folder, "behavior_events")):
        with pytest.raises(UnreadableTableError) as error:
            read(tmp_path)
        assert str(error.value).startswith(f"the table {table} cannot be opened (")
        assert "restore it" in str(error.value)
        assert "\n" not in str(error.value)
        assert isinstance(error.value, DeltaError)


def test_a_commit_that_came_in_damaged_since_the_table_was_opened_is_told_so_too(tmp_path):
    write_events(tmp_path, D1, ["u1"])
    assert users_in(tmp_path) == ["u1"]
    uri = table_uri(tmp_path, "behavior_events")
    write_deltalake(uri, events(D2, ["u2"]), mode="append")
    cut_short(uri)
    with pytest.raises(UnreadableTableError, match="behavior_events"):
        users_in(tmp_path)
