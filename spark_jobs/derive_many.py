"""Every table of a day of many rows: Spark runs the steps for buckets of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial, reduce

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.schemas import SOURCES
from bahe_tasks.stores.delta_tables import data_fragments
from spark_jobs.arrow_columns import repeated
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.derive import derive, partitions_read
from spark_jobs.derived.met_behaviors import met_behaviors
from spark_jobs.derived.run_in_buckets import InBuckets
from spark_jobs.derived.steps import Part, rows_in
from spark_jobs.gather_behaviors import TEXTS, gather_behaviors
from spark_jobs.settled_rows import SettledRows
from spark_jobs.write_day import DayTables, DerivedCounts, count_derived

_BYTES_A_BUCKET = 8 << 20
"""Bytes of files whose rows a step holds at once, some fifty times as many in memory."""
_BUCKETS_A_CORE = 4
"""At least, since they differ in size."""


def derive_many(
    spark: SparkSession, plan: DedupPlan, settled: Mapping[str, SettledRows[DataFrame]], *, folder: str
) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write, which lie in files in the folder, and what is counted of them."""
    kept = {source: rows.kept for source, rows in settled.items()}
    run = InBuckets(
        spark,
        tables_dir=plan.tables_dir,
        settled=kept,
        folder=folder,
        buckets=num_buckets(spark, _bytes_read(plan, kept)),
    )
    derived = derive(run, plan)
    behaviors = gather_behaviors(plan, met_behaviors(run, plan, derived))
    quarantined = [rows.quarantined.withColumn("source_table", F.lit(source)) for source, rows in settled.items()]
    return {
        **{source: partial(rows_in, run.settled(source)) for source in SOURCES if source != "impressions"},
        "quarantine": reduce(DataFrame.union, quarantined),
        "user_sequences": partial(_of_day, derived.sequences, plan.day),
        "impressions": partial(rows_in, derived.impressions),
        "running_sums": partial(_of_day, derived.state, plan.day),
        "atomic_behaviors": partial(rows_in, behaviors.unwritten) if behaviors.unwritten else TEXTS.empty_table(),
        "new_behaviors": partial(rows_in, behaviors.new),
    }, count_derived(behaviors, derived)


def num_buckets(spark: SparkSession, num_bytes: int) -> int:
    """Return in how many buckets rows of so many bytes are shared out."""
    return max(_BUCKETS_A_CORE * spark.sparkContext.defaultParallelism, num_bytes // _BYTES_A_BUCKET)


def _bytes_read(plan: DedupPlan, settled: Mapping[str, Sequence[Part]]) -> int:
    """Return the bytes of what landed and of what is stored that the steps read."""
    landed = sum(part.num_bytes for parts in settled.values() for part in parts)
    stored = [
        num_bytes
        for name, partitions in partitions_read(plan).items()
        for _, num_bytes in data_fragments(plan.tables_dir, name, partitions=partitions)
    ]
    return landed + sum(stored)


def _of_day(parts: Sequence[Part], day: date) -> Iterator[pa.Table]:
    for rows in rows_in(parts):
        yield rows.append_column("dt", repeated(day, pa.date32(), len(rows)))
