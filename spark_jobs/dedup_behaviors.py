"""The Spark job of stage dedup_behaviors: a landed day becomes tables (PAPER.md, "Every day").

Reads the landing, sends broken rows to quarantine, drops duplicates, builds point-in-time histories, and finds which
atomic behaviors are new. Each step is a file beside this one.

Unusual: everything is computed before anything is written, and intermediate rows are kept by local checkpoints, not in
Spark's cache: a commit to a table makes Spark throw away and recompute every cached frame that has read from it.
Of a day of few rows Spark settles the landed rows, and the driver does the rest (`spark_jobs.few_rows`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.schemas import SOURCES
from spark_jobs.build_sequences import build_sequences, sequence_ends
from spark_jobs.count_rows import count_rows
from spark_jobs.counted_rows import counted_rows
from spark_jobs.dedup_plan import DedupPlan as DedupPlan  # part of this job's interface
from spark_jobs.delta_partitions import in_days, read_delta
from spark_jobs.few_rows.derive import derive
from spark_jobs.gather_behaviors import gather_behaviors, landed_texts, window_keys
from spark_jobs.label_date import with_label_date
from spark_jobs.look_up_items import look_up_items
from spark_jobs.look_up_keys import look_up_keys
from spark_jobs.many_rows import many_rows
from spark_jobs.running_sums import running_sums
from spark_jobs.settle_landing import settled_landing
from spark_jobs.settled_rows import SettledRows
from spark_jobs.side_by_side import side_by_side
from spark_jobs.write_day import DayTables, DerivedCounts, write_day


class TextMissingError(RuntimeError):
    """A behavior_key is needed whose text is in no dictionary."""


def dedup_behaviors(spark: SparkSession, plan: DedupPlan) -> dict[str, Any]:
    """Write the day's partitions and return its counts, which are the same in every run over the same landing.

    The counts are those of the day: per source and, beside them, those of impressions and of the derived tables.
    Counts of catch-up partitions stand in the commits of their tables. Raises `RowsLostError`, `TextMissingError`.
    """
    with many_rows(spark, enabled=not plan.is_small), settled_landing(spark, plan) as sources:
        counts = count_rows(sources, days={source: plan.days_of(source) for source in SOURCES})
        if plan.is_small:
            tables, derived = derive(
                plan, {source: rows.kept for source, rows in sources.items()}, _quarantine(sources)
            )
        else:
            tables, derived = _derive(spark, plan, sources)
        day_counts = {source: counts[source][plan.day] for source in SOURCES}
        stage_counts = day_counts["impressions"] | day_counts | _derived_counts(derived, plan.day)
        write_day(tables, plan=plan, source_counts=counts, stage_counts=stage_counts)
    return stage_counts


def _derive(
    spark: SparkSession, plan: DedupPlan, settled: Mapping[str, SettledRows[DataFrame]]
) -> tuple[DayTables, DerivedCounts]:
    """Build every table of the day out of the rows just settled and the partitions of earlier days."""
    fresh = {source: rows.kept.drop("copies") for source, rows in settled.items()}
    today = with_label_date(fresh["impressions"], label_delay_s=plan.landing.label_delay_s)
    oldest_event = plan.day - timedelta(days=plan.sequences.history_days - 1)
    events = _readable(spark, plan, "behavior_events", fresh["behavior_events"], first=oldest_event)
    items = _readable(spark, plan, "items", fresh["items"], first=None)
    sequences = (
        build_sequences(events, today, sequences=plan.sequences).withColumn("dt", F.lit(plan.day)).localCheckpoint()
    )
    impressions = sequence_ends(look_up_items(today, items), sequences, settings=plan.sequences).localCheckpoint()
    needed = window_keys(
        sequences=_readable(
            spark, plan, "user_sequences", sequences.select("dt", "behavior_keys"), first=plan.needed_from
        ),
        impressions=_readable(
            spark, plan, "impressions", impressions.select("dt", "title_key"), first=plan.needed_from
        ),
    )
    texts = landed_texts(plan, events=fresh["behavior_events"], items=fresh["items"])
    counted = counted_rows(
        plan,
        today=impressions,
        earlier=_impressions_still_to_count(spark, plan),
        events=_readable(
            spark,
            plan,
            "behavior_events",
            fresh["behavior_events"],
            first=plan.state_before and plan.state_before + timedelta(days=1),
        ),
    )
    behaviors, sums = side_by_side(
        lambda: gather_behaviors(spark, plan, texts=texts, needed=needed).localCheckpoint(),
        lambda: running_sums(spark, plan, counted),
    )
    new = behaviors.where("is_new").withColumn("encoder_version", F.lit(plan.encoder_version))
    quarantined = [rows.quarantined.withColumn("source_table", F.lit(source)) for source, rows in settled.items()]
    return {
        **{source: settled[source].kept for source in ("behavior_events", "items")},
        "quarantine": functools.reduce(DataFrame.union, quarantined),
        "user_sequences": sequences,
        "impressions": impressions.join(sums.of_impressions, "impression_id", "left"),
        "atomic_behaviors": behaviors.where("NOT in_dictionary AND text IS NOT NULL"),
        "new_behaviors": new.withColumn("dt", F.lit(plan.day)),
        "running_sums": sums.state,
    }, _count_derived(behaviors, sequences)


def _impressions_still_to_count(spark: SparkSession, plan: DedupPlan) -> DataFrame:
    """Impressions of earlier days, with title, whose label became known, or that were shown, after the state before D."""
    wanted = f"dt < '{plan.day}'" + (f" AND NOT {in_days(plan.excluded_days)}" if plan.excluded_days else "")
    if plan.state_before is not None:
        oldest = plan.state_before - timedelta(days=plan.landing.label_horizon_days)
        wanted += f" AND dt > '{oldest}'"
    earlier = read_delta(spark, plan.tables_dir, "impressions", partitions=wanted)
    if plan.state_before is not None:
        earlier = earlier.where(f"label_date > '{plan.state_before}'")
    titles = look_up_keys(
        spark,
        earlier.select(F.col("title_key").alias("behavior_key")).distinct(),
        tables_dir=plan.tables_dir,
        name="atomic_behaviors",
        columns=("behavior_key", "text"),
    ).toDF("title_key", "title")
    return earlier.join(titles, "title_key", "left")


def _readable(spark: SparkSession, plan: DedupPlan, name: str, fresh: DataFrame, *, first: date | None) -> DataFrame:
    """Rows of dt in [first, D] that may be read: those earlier runs wrote, and for days this run writes the fresh ones."""
    wanted = f"dt <= '{plan.day}'" if first is None else f"dt >= '{first}' AND dt <= '{plan.day}'"
    refused = f" AND NOT {in_days(plan.excluded_days)}" if plan.excluded_days else ""
    written_before = f"{wanted}{refused} AND NOT {in_days(plan.days_of(name))}"
    earlier = read_delta(spark, plan.tables_dir, name, partitions=written_before)
    return earlier.select(*fresh.columns).union(fresh.where(wanted + refused))


def _quarantine(sources: Mapping[str, SettledRows[pa.Table]]) -> pa.Table:
    rows = [
        of.quarantined.append_column("source_table", pa.repeat(pa.scalar(source), len(of.quarantined)))
        for source, of in sources.items()
    ]
    return pa.concat_tables(rows)


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


def _derived_counts(counts: DerivedCounts, day: date) -> dict[str, Any]:
    if counts.without_text:
        raise TextMissingError(
            f"{counts.without_text} behaviors needed on {day} have no text in atomic_behaviors; was that table removed? "
            "Delete the whole tables folder and backfill it from the landing"
        )
    return {
        "needed_behaviors": counts.needed,
        "new_behaviors": counts.new,
        "reuse_rate": 1 - counts.new / counts.needed if counts.needed else 1.0,
        "sequences": counts.sequences,
        "capped_behaviors": counts.capped,
    }
