"""Delta tables as Spark sees them: read, overwrite whole partitions, append to the dictionary.

Every commit carries one JSON document, {"partitions": {key: {"input_fingerprint", "counts"}}}: the newest commit that
names a partition tells its state. Tables are plain (reader 1, writer 2), so that delta-rs reads and writes them too.

Unusual: a table comes to be with its first write, which carries its properties.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from delta import DeltaTable
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.schemas import TABLES


def table_exists(spark: SparkSession, tables_dir: str | Path, name: str) -> bool:
    """Whether the table has ever been written."""
    return DeltaTable.isDeltaTable(spark, _path(tables_dir, name))


def read_delta(spark: SparkSession, tables_dir: str | Path, name: str) -> DataFrame:
    """Return the table's rows; no rows when the table does not exist yet."""
    if not table_exists(spark, tables_dir, name):
        return spark.createDataFrame([], TABLES[name].ddl)
    return spark.read.format("delta").load(_path(tables_dir, name))


def overwrite_partitions(
    rows: DataFrame, *, tables_dir: str | Path, name: str, where: str, partitions: Mapping[str, Mapping[str, Any]]
) -> None:
    """Replace the rows of the table that satisfy `where`, a predicate over partition columns, in one commit."""
    _write(rows, tables_dir, name, mode="overwrite", partitions=partitions, replace_where=where)


def append_rows(
    rows: DataFrame, *, tables_dir: str | Path, name: str, partitions: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add rows that are known not to be in the table, in one commit."""
    _write(rows, tables_dir, name, mode="append", partitions=partitions, replace_where=None)


def in_days(days: Collection[date]) -> str:
    """Return the predicate that `dt` is one of the days."""
    return f"dt IN ({', '.join(repr(str(day)) for day in sorted(days))})"


def _write(
    rows: DataFrame,
    tables_dir: str | Path,
    name: str,
    *,
    mode: Literal["append", "overwrite"],
    partitions: Mapping[str, Mapping[str, Any]],
    replace_where: str | None,
) -> None:
    schema = TABLES[name]
    columns = [F.col(column).cast(kind).alias(column) for column, kind in schema.columns]
    # One file a partition while it is small, files of even size where it is not.
    ready = rows.select(*columns).hint("rebalance", *[F.col(column) for column in schema.partition_columns])
    writer: DataFrameWriter = (
        ready.write.format("delta")
        .mode(mode)
        .option("userMetadata", json.dumps({"partitions": partitions}, sort_keys=True))
        .option("delta.logRetentionDuration", "interval 36500 days")
        .option("mergeSchema", "true")  # a table written before a column was added gets it
    )
    if replace_where is not None:
        writer = writer.option("replaceWhere", replace_where)
    writer.partitionBy(*schema.partition_columns).save(_path(tables_dir, name))


def _path(tables_dir: str | Path, name: str) -> str:
    return f"{str(tables_dir).rstrip('/')}/{TABLES[name].name}"
