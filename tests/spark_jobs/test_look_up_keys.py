"""Known keys are found alike by Arrow and by Spark, and only those that were asked for."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from bahe_tasks.stores.delta_writes import append_rows, replace_partitions
from spark_jobs import look_up_keys as module
from spark_jobs.look_up_keys import look_up_keys

pytestmark = pytest.mark.spark


@pytest.fixture(params=["few keys", "many keys"])
def way(request, monkeypatch):
    if request.param == "many keys":
        monkeypatch.setattr(module, "MANY_KEYS", 1)


def asked(spark, *keys):
    return spark.createDataFrame([(key,) for key in keys], "behavior_key string")


@pytest.mark.usefixtures("way")
def test_rows_of_the_keys_that_are_asked_for(spark, tmp_path):
    for part in ("a", "b"):
        table = pa.table({"behavior_key": [part, f"{part}2"], "text": [f"text of {part}", "other"]})
        append_rows(tmp_path, "atomic_behaviors", table, partitions={})
    found = look_up_keys(
        spark,
        asked(spark, "a", "b2", "a", None, "unknown"),
        tables_dir=tmp_path,
        name="atomic_behaviors",
        columns=("behavior_key", "text"),
    )
    assert sorted(tuple(row) for row in found.collect()) == [("a", "text of a"), ("b2", "other")]


@pytest.mark.usefixtures("way")
def test_keys_are_found_in_files_before_and_after_one_that_has_none_of_them(spark, tmp_path):
    for part in "abcde":
        append_rows(tmp_path, "atomic_behaviors", pa.table({"behavior_key": [part], "text": [part]}), partitions={})
    found = look_up_keys(spark, asked(spark, "a", "c", "e"), tables_dir=tmp_path, name="atomic_behaviors")
    assert sorted(row["behavior_key"] for row in found.collect()) == ["a", "c", "e"]


@pytest.mark.usefixtures("way")
def test_rows_of_some_partitions(spark, tmp_path):
    for day in (date(2024, 1, 1), date(2024, 1, 2)):
        rows = {"encoder_version": ["e"], "dt": [day], "behavior_key": [f"k{day.day}"], "embedding": [b"\0\0"]}
        predicate = f"encoder_version = 'e' AND dt = '{day}'"
        replace_partitions(tmp_path, "behavior_embeddings", pa.table(rows), predicate=predicate, partitions={})
    found = look_up_keys(
        spark,
        asked(spark, "k1", "k2"),
        tables_dir=tmp_path,
        name="behavior_embeddings",
        partitions="encoder_version = 'e' AND dt <> '2024-01-02'",
    )
    assert [row["behavior_key"] for row in found.collect()] == ["k1"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("keys", [(), ("a", "b")])
def test_no_key_or_no_table_gives_no_rows(spark, tmp_path, keys):
    found = look_up_keys(spark, asked(spark, *keys), tables_dir=tmp_path, name="atomic_behaviors")
    assert (found.columns, found.collect()) == (["behavior_key"], [])


@pytest.mark.usefixtures("way")
def test_keys_that_begin_alike_are_told_apart(spark, tmp_path):
    keys = [f"{n:08x}".ljust(64, "0") for n in range(500)]
    alike = [key[:-1] + "1" for key in keys]  # the same first digits, another key
    table = pa.table({"behavior_key": keys[:300] + alike[300:], "text": ["t"] * 500})
    append_rows(tmp_path, "atomic_behaviors", table, partitions={})
    found = look_up_keys(spark, asked(spark, *keys[200:400]), tables_dir=tmp_path, name="atomic_behaviors")
    assert sorted(row["behavior_key"] for row in found.collect()) == keys[200:300]
