"""Spark and delta-rs write the same tables: each must read, replace and record what the other wrote."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from bahe_tasks.config import SparkConfig
from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.partition_records import partition_records

D1, D2 = date(2013, 9, 24), date(2013, 9, 25)


def impression(day, user):
    return {
        "dt": day,
        "impression_id": f"{user}-1",
        "user_id": user,
        "item_id": "i",
        "shown_at": datetime(day.year, day.month, day.day, 5, 0, 0, 123456, tzinfo=UTC),
        "label": 1,
        "label_known_at": None,
        "label_date": day,
        "is_late": False,
        "title_key": None,
        "sequence_ends": [("bills", 2)],
        "labels": [],
        "cat": [("genre", "drama")],
        "num": [("price", 1.5)],
        "sums": [0.5, None],
        "outcome_value": 4.0,
    }


def entry(day, writer):
    return {str(day): {"input_fingerprint": writer, "counts": {"rows": 1}}}


@pytest.mark.spark
def test_spark_and_delta_rs_read_and_replace_each_others_partitions(tmp_path):
    from spark_jobs.delta_partitions import overwrite_partitions
    from spark_jobs.session import spark_session

    spark = spark_session(SparkConfig(), app_name="tests")

    def by_spark(day, user):
        row = impression(day, user)
        maps = [name for name, kind in TABLES["impressions"].columns if kind.startswith("map")]
        values = tuple(dict(value) if name in maps else value for name, value in row.items())
        overwrite_partitions(
            spark.createDataFrame([values], schema=TABLES["impressions"].ddl),
            tables_dir=tmp_path,
            name="impressions",
            where=f"dt = '{day}'",
            partitions=entry(day, "spark"),
        )

    def by_delta_rs(day, user):
        rows = pa.Table.from_pylist([impression(day, user)], schema=arrow_schema("impressions"))
        replace_partitions(tmp_path, "impressions", rows, predicate=f"dt = '{day}'", partitions=entry(day, "delta-rs"))

    by_spark(D1, "u1")
    by_spark(D2, "u2")
    assert read_table(tmp_path, "impressions", partitions=f"dt = '{D1}'").to_pylist() == [impression(D1, "u1")]
    by_delta_rs(D1, "u3")
    by_spark(D2, "u4")
    found = read_table(tmp_path, "impressions").sort_by("dt").to_pylist()
    assert found == [impression(D1, "u3"), impression(D2, "u4")]
    seen_by_spark = [
        row.asDict() for row in spark.read.format("delta").load(f"{tmp_path}/impressions").orderBy("dt").collect()
    ]
    assert [(row["user_id"], row["sequence_ends"], row["num"]) for row in seen_by_spark] == [
        ("u3", {"bills": 2}, {"price": 1.5}),
        ("u4", {"bills": 2}, {"price": 1.5}),
    ]
    records = partition_records(tmp_path, "impressions")
    assert {day: record.input_fingerprint for day, record in records.items()} == {
        "2013-09-24": "delta-rs",
        "2013-09-25": "spark",
    }


@pytest.mark.spark
def test_spark_writes_to_a_table_delta_rs_made(tmp_path):
    from spark_jobs.delta_partitions import overwrite_partitions
    from spark_jobs.session import spark_session

    spark = spark_session(SparkConfig(), app_name="tests")
    replace_partitions(
        tmp_path,
        "atomic_behaviors",
        pa.table({"behavior_key": ["a" * 64], "text": ["tea"]}),
        predicate="true",
        partitions={},
    )
    rows = spark.createDataFrame([("b" * 64, "coffee")], schema=TABLES["atomic_behaviors"].ddl)
    overwrite_partitions(rows, tables_dir=tmp_path, name="atomic_behaviors", where="true", partitions={})
    assert [row.text for row in spark.read.format("delta").load(f"{tmp_path}/atomic_behaviors").collect()] == ["coffee"]
    assert read_table(tmp_path, "atomic_behaviors")["text"].to_pylist() == ["coffee"]
