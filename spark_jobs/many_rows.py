"""Settings of queries over a day that is not small: shuffles in many parts, of which Spark joins small ones together.

Unusual: however large the day, a task then groups no more than some hundred megabytes, so it never has to sort them on
disk; with the few parts that suit a small day it would from some millions of rows on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

_INITIAL_PARTS = "spark.sql.adaptive.coalescePartitions.initialPartitionNum"
_PARTS = 32


@contextmanager
def many_rows(spark: SparkSession, *, enabled: bool) -> Iterator[None]:
    """Let shuffles start in many parts."""
    before = spark.conf.get(_INITIAL_PARTS, None)
    if enabled:
        spark.conf.set(_INITIAL_PARTS, max(_PARTS, int(spark.conf.get("spark.sql.shuffle.partitions") or 0)))
    try:
        yield
    finally:
        if enabled:
            spark.conf.unset(_INITIAL_PARTS) if before is None else spark.conf.set(_INITIAL_PARTS, before)
