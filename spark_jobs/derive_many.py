"""Every table of a day of many rows: Spark runs the steps for buckets of rows, and finds the new behaviors."""

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
from spark_jobs.derived.file_parts import part_of_file
from spark_jobs.derived.needed_keys import needed_keys
from spark_jobs.derived.run_in_buckets import InBuckets
from spark_jobs.derived.steps import Part, rows_in
from spark_jobs.gather_behaviors import gather_behaviors, landed_texts
from spark_jobs.landing_files import bytes_of
from spark_jobs.settled_rows import SettledRows
from spark_jobs.write_day import DayTables, DerivedCounts

_BYTES_A_BUCKET = 8 << 20
"""Bytes of files whose rows a step holds at once, some fifty times as many in memory."""
_BUCKETS_A_CORE = 4
"""At least, since they differ in size."""


def derive_many(
    spark: SparkSession, plan: DedupPlan, settled: Mapping[str, SettledRows[DataFrame]], *, folder: str
) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write, which lie in files in the folder, and what is counted of them."""
    files = {source: _parts(rows.files) for source, rows in settled.items()}
    run = InBuckets(
        spark,
        tables_dir=plan.tables_dir,
        settled=files,
        folder=folder,
        buckets=max(
            _BUCKETS_A_CORE * spark.sparkContext.defaultParallelism, _bytes_read(plan, files) // _BYTES_A_BUCKET
        ),
    )
    derived = derive(run, plan)
    needed = _frame(spark, needed_keys(run, plan, derived), "behavior_key string")
    sequences = _frame(spark, derived.sequences, "capped bigint")
    fresh = {source: rows.kept.drop("copies") for source, rows in settled.items()}
    texts = landed_texts(plan, events=fresh["behavior_events"], items=fresh["items"])
    behaviors = gather_behaviors(spark, plan, texts=texts, needed=needed).localCheckpoint()
    new = behaviors.where("is_new").withColumn("encoder_version", F.lit(plan.encoder_version))
    quarantined = [rows.quarantined.withColumn("source_table", F.lit(source)) for source, rows in settled.items()]
    return {
        **{source: partial(rows_in, run.settled(source)) for source in SOURCES if source != "impressions"},
        "quarantine": reduce(DataFrame.union, quarantined),
        "user_sequences": partial(_of_day, derived.sequences, plan.day),
        "impressions": partial(rows_in, derived.impressions),
        "running_sums": partial(_of_day, derived.state, plan.day),
        "atomic_behaviors": behaviors.where("NOT in_dictionary AND text IS NOT NULL"),
        "new_behaviors": new.withColumn("dt", F.lit(plan.day)),
    }, _count_derived(behaviors, sequences)


def _parts(files: Sequence[str]) -> list[Part]:
    return [part_of_file(file, num_bytes) for file, num_bytes in zip(files, bytes_of(files), strict=True)]


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


def _frame(spark: SparkSession, parts: Sequence[Part], ddl: str) -> DataFrame:
    files = [part.file for part in parts]
    return spark.read.schema(ddl).parquet(*files) if files else spark.createDataFrame([], ddl)


def _count_derived(behaviors: DataFrame, sequences: DataFrame) -> DerivedCounts:
    of_behaviors = behaviors.select(
        F.count_if("is_needed").alias("needed"),
        F.count_if("is_new").alias("new"),
        F.count_if(F.col("is_new") & F.col("text").isNull()).alias("without_text"),
    )
    of_sequences = sequences.select(
        F.count("*").alias("sequences"), F.coalesce(F.sum("capped"), F.lit(0)).alias("capped")
    )
    return DerivedCounts(**of_behaviors.crossJoin(of_sequences).collect()[0].asDict())
