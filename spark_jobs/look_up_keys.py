"""Rows of the dictionary and of the embedding table for the keys of one day, at a cost that hardly knows their age.

Keys are sha256: those of any day lie all over the table, and no order or partition of it could leave a part unread. So
its column of keys is read once, and nothing else happens to a key that the day does not have.

Unusual: the reader is Arrow in the driver, which compares keys sooner than Spark reads them, and need not shuffle them for
a join (`benchmarks.dedup_cost`). Only a day of many keys is joined by Spark.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.delta_tables import data_files, read_table
from spark_jobs.delta_partitions import read_delta
from spark_jobs.known_keys import known_keys

MANY_KEYS = 4_000_000
"""More do not go through the driver; so many take 300 MB of it."""


def look_up_keys(
    spark: SparkSession,
    keys: DataFrame,
    *,
    tables_dir: str | Path,
    name: str,
    columns: tuple[str, ...] = ("behavior_key",),
    partitions: str | None = None,
) -> DataFrame:
    """Return the columns, behavior_key among them, of the table's rows whose behavior_key is one of `keys`.

    `keys`: behavior_key, none repeated but null; it is computed twice. `partitions`: SQL over partition columns.
    """
    wanted = keys.where("behavior_key IS NOT NULL").select("behavior_key")
    day_keys = wanted.limit(MANY_KEYS + 1).toArrow()["behavior_key"]
    if len(day_keys) > MANY_KEYS:
        table = read_delta(spark, tables_dir, name, partitions=partitions).select(*columns)
        return table.join(wanted, "behavior_key", "left_semi")
    kinds = dict(TABLES[name].columns)
    schema = ", ".join(f"{column} {kinds[column]}" for column in columns)
    if not len(day_keys):
        return spark.createDataFrame([], schema)
    asked = pa.array(day_keys.combine_chunks(), pa.string())
    if columns == ("behavior_key",):
        found = pa.table([known_keys(asked, data_files(tables_dir, name, partitions=partitions))], list(columns))
    else:
        is_wanted = pc.field("behavior_key").isin(asked)
        found = read_table(tables_dir, name, columns=columns, partitions=partitions, filters=is_wanted)
    # PySpark 4.2.0 drops what follows an empty chunk, and a file without any of the keys is one.
    return spark.createDataFrame(found.combine_chunks(), schema)
