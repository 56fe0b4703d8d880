"""Writes of the Spark job to Delta tables: overwrite whole partitions, append to the dictionary.

Every commit carries one JSON document, {"partitions": {key: {"input_fingerprint", "counts"}}}: the newest commit that
names a partition tells its state. Tables are plain (reader 1, writer 2), so that delta-rs reads and writes them too.

Unusual: rows that are Arrow tables, in the driver or read part by part, are written by delta-rs, in the driver alone: Spark
takes three jobs, about a second, for a small log. Those of a frame are written by Spark. A table comes to be with its first
write, which carries its properties.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores import delta_writes
from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.delta_writes import TABLE_PROPERTIES
from bahe_tasks.stores.partition_records import COMMIT_METADATA_KEY

Rows: TypeAlias = DataFrame | delta_writes.Rows
"""Rows to write, wherever they are."""


def overwrite_partitions(
    rows: Rows,
    *,
    tables_dir: str | Path,
    name: str,
    where: str,
    partitions: Mapping[str, Mapping[str, Any]],
) -> None:
    """Replace the rows of the table that satisfy `where`, a predicate over partition columns, in one commit."""
    if isinstance(rows, DataFrame):
        _write(rows, tables_dir, name, partitions, mode="overwrite", replaceWhere=where)
    else:
        delta_writes.replace_partitions(tables_dir, name, rows, predicate=where, partitions=partitions)


def append_rows(rows: Rows, *, tables_dir: str | Path, name: str, partitions: Mapping[str, Mapping[str, Any]]) -> None:
    """Add rows that are known not to be in the table, in one commit; no commit where a frame or table has none."""
    if isinstance(rows, DataFrame):
        if not rows.isEmpty():
            _write(rows, tables_dir, name, partitions, mode="append")
    elif not isinstance(rows, pa.Table) or rows.num_rows:
        delta_writes.append_rows(tables_dir, name, rows, partitions=partitions)


def in_days(days: Collection[date]) -> str:
    """Return the predicate that `dt` is one of the days."""
    return f"dt IN ({', '.join(repr(str(day)) for day in sorted(days))})"


def _write(
    rows: DataFrame,
    tables_dir: str | Path,
    name: str,
    partitions: Mapping[str, Mapping[str, Any]],
    *,
    mode: str,
    **options: str,
) -> None:
    columns = TABLES[name].partition_columns
    rows = rows.select(*[F.col(column).cast(kind).alias(column) for column, kind in TABLES[name].columns])
    # Files of even size, and one a partition where it is small.
    ready = rows.hint("rebalance", *[F.col(column) for column in columns])
    document = json.dumps({"partitions": partitions}, sort_keys=True)
    # A table written before a column was added gets it by mergeSchema.
    options = options | TABLE_PROPERTIES | {COMMIT_METADATA_KEY: document, "mergeSchema": "true"}
    writer = ready.write.format("delta").mode(mode).options(**options)
    writer.partitionBy(*columns).save(table_uri(tables_dir, name))
