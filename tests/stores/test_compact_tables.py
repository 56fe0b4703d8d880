"""Merging small files changes neither rows, nor what an older version reads, nor any day's record."""

import os
import re
import time
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from bahe_tasks.stores import delta_writes, opened_tables
from bahe_tasks.stores import partition_records as records_module
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.compact_tables import compact_table
from bahe_tasks.stores.delta_tables import data_files, read_table, table_uri, table_version
from bahe_tasks.stores.delta_writes import TABLE_PROPERTIES, append_rows, replace_partitions
from bahe_tasks.stores.partition_records import partition_records

FIRST, DAY_S = date(2013, 1, 1), 86400


def embedded(tables_dir, day, keys):
    """Write embeddings as a day's run does."""
    rows = [{"encoder_version": "e", "dt": day, "behavior_key": key, "embedding": key.encode()} for key in keys]
    return replace_partitions(
        tables_dir,
        "behavior_embeddings",
        pa.Table.from_pylist(rows, schema=arrow_schema("behavior_embeddings")),
        predicate=f"encoder_version = 'e' AND dt = '{day}'",
        partitions={str(day): {"input_fingerprint": f"f{day}", "counts": {"rows": len(rows)}}},
    )


def add_texts(tables_dir, day, keys):
    """Append texts as a day's run does."""
    rows = pa.table({"behavior_key": keys, "text": [f"text of {key}" for key in keys]})
    return append_rows(
        tables_dir, "atomic_behaviors", rows, partitions={str(day): {"input_fingerprint": f"f{day}", "counts": {}}}
    )


def rows_of(tables_dir, name, **how):
    return sorted(map(str, read_table(tables_dir, name, **how).to_pylist()))


def test_small_days_end_with_one_file_of_texts_and_one_of_embeddings_a_day(tmp_path):
    days = [FIRST + timedelta(days=n) for n in range(365)]
    for n, day in enumerate(days[:30]):
        add_texts(tmp_path, day, [f"k{n}"])
    for part in range(2):
        append_rows(
            tmp_path,
            "behavior_embeddings",
            pa.table(
                {
                    "encoder_version": ["e"] * len(days),
                    "dt": days,
                    "behavior_key": [f"{day}{part}" for day in days],
                    "embedding": [b"\0\0"] * len(days),
                },
                schema=arrow_schema("behavior_embeddings"),
            ),
            partitions={},
        )
    before = {name: rows_of(tmp_path, name) for name in ("atomic_behaviors", "behavior_embeddings")}
    assert compact_table(tmp_path, "atomic_behaviors") == (30, 1, 0)
    assert compact_table(tmp_path, "behavior_embeddings") == (730, 365, 0)
    assert before == {name: rows_of(tmp_path, name) for name in before}


def test_older_versions_read_what_they_read_and_records_stay(tmp_path):
    versions = [add_texts(tmp_path, FIRST + timedelta(days=n), [f"k{n}"]) for n in range(5)]
    read = {version: rows_of(tmp_path, "atomic_behaviors", version=version) for version in versions}
    records = partition_records(tmp_path, "atomic_behaviors")
    compact_table(tmp_path, "atomic_behaviors")
    DeltaTable(table_uri(tmp_path, "atomic_behaviors")).create_checkpoint()
    records_module._records.clear()  # as another process, which reads the whole log
    assert partition_records(tmp_path, "atomic_behaviors") == records
    assert len(records) == 5
    assert {version: rows_of(tmp_path, "atomic_behaviors", version=version) for version in versions} == read


def test_a_second_compaction_commits_nothing(tmp_path):
    for n in range(3):
        add_texts(tmp_path, FIRST, [f"k{n}"])
    compact_table(tmp_path, "atomic_behaviors")
    version = table_version(tmp_path, "atomic_behaviors")
    assert compact_table(tmp_path, "atomic_behaviors", delete_after_days=7) == (1, 1, 0)
    assert table_version(tmp_path, "atomic_behaviors") == version


def test_a_day_replaced_after_compaction_leaves_the_other_days_alone(tmp_path):
    for n in range(2):
        embedded(tmp_path, FIRST + timedelta(days=n), [f"a{n}", f"b{n}"])
    compact_table(tmp_path, "behavior_embeddings")
    embedded(tmp_path, FIRST, ["c"])
    assert sorted(read_table(tmp_path, "behavior_embeddings")["behavior_key"].to_pylist()) == ["a1", "b1", "c"]


def test_only_versions_that_are_pinned_can_be_read_after_old_files_are_deleted(tmp_path):
    for n in range(6):
        embedded(tmp_path, FIRST, [f"k{n}"])
    newest, pinned = table_version(tmp_path, "behavior_embeddings"), 3
    read = rows_of(tmp_path, "behavior_embeddings", version=pinned)
    records = partition_records(tmp_path, "behavior_embeddings")
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=1, pinned=[pinned]).deleted_files == 0
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=0, pinned=[pinned]).deleted_files == 4
    assert rows_of(tmp_path, "behavior_embeddings", version=pinned) == read
    assert rows_of(tmp_path, "behavior_embeddings") == rows_of(tmp_path, "behavior_embeddings", version=newest)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path, "behavior_embeddings", version=pinned + 1)
    records_module._records.clear()
    assert partition_records(tmp_path, "behavior_embeddings") == records


def test_files_that_are_deleted_are_told_and_committed_once(tmp_path):
    for n in range(3):
        embedded(tmp_path, FIRST, [f"k{n}"])
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=0).deleted_files == 2
    version = table_version(tmp_path, "behavior_embeddings")
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=0).deleted_files == 0
    assert table_version(tmp_path, "behavior_embeddings") == version


@pytest.mark.parametrize("properties", [TABLE_PROPERTIES, {"delta.logRetentionDuration": "interval 36500 days"}])
def test_an_old_file_that_left_its_table_lately_stays_though_a_checkpoint_was_written(
    tmp_path, monkeypatch, properties
):
    monkeypatch.setattr(delta_writes, "TABLE_PROPERTIES", properties)  # those of a table that earlier code made
    old = embedded(tmp_path, FIRST, ["old"])
    (file,) = data_files(tmp_path, "behavior_embeddings")
    os.utime(file, (time.time() - 200 * DAY_S,) * 2)
    embedded(tmp_path, FIRST, ["new"])
    commit = max((tmp_path / "behavior_embeddings" / "_delta_log").glob("*.json"))
    removed = int((time.time() - 10 * DAY_S) * 1000)
    commit.write_text(re.sub(r'"deletionTimestamp":\d+', f'"deletionTimestamp":{removed}', commit.read_text()))
    opened_tables._opened.clear()
    compact_table(tmp_path, "behavior_embeddings", delete_after_days=90)
    DeltaTable(table_uri(tmp_path, "behavior_embeddings")).create_checkpoint()
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=90).deleted_files == 0
    assert read_table(tmp_path, "behavior_embeddings", version=old).num_rows == 1
    assert compact_table(tmp_path, "behavior_embeddings", delete_after_days=9).deleted_files == 1


def test_merged_files_are_written_as_the_table_s_others(tmp_path, monkeypatch):
    monkeypatch.setattr(delta_writes, "_ROWS_A_GROUP", 2)
    for n in range(3):
        add_texts(tmp_path, FIRST, [f"k{n}", f"l{n}"])
    compact_table(tmp_path, "atomic_behaviors")
    (file,) = data_files(tmp_path, "atomic_behaviors")
    assert pq.read_metadata(file).num_row_groups == 3


def test_a_table_that_does_not_exist_is_none(tmp_path):
    assert compact_table(tmp_path, "impressions") is None
    assert data_files(tmp_path, "impressions") == []
