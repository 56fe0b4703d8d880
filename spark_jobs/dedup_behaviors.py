"""The Spark job of stage dedup_behaviors: a landed day becomes tables (PAPER.md, "Every day").

Reads the landing, sends broken rows to quarantine, drops duplicates, builds point-in-time histories, and finds which
atomic behaviors are new. Each step is a file beside this one.

Unusual: everything is computed before anything is written. The dictionary and the quarantine are written before the
source tables, whose commits say that a partition was taken in, and the commit of `impressions` comes last: a job
killed anywhere leaves a day that the next run repeats with the same rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.schemas import SOURCES
from spark_jobs.build_sequences import build_sequences, sequence_ends
from spark_jobs.count_rows import SourceRows, count_rows
from spark_jobs.dedup_plan import DedupPlan as DedupPlan  # part of this job's interface
from spark_jobs.delta_partitions import read_delta
from spark_jobs.find_new_behaviors import mark_new, needed_keys, new_texts
from spark_jobs.judge_events import EVENT_CONTENT, judge_events
from spark_jobs.judge_impressions import IMPRESSION_CONTENT, judge_impressions
from spark_jobs.judge_items import ITEM_CONTENT, judge_items
from spark_jobs.look_up_items import look_up_items
from spark_jobs.read_landing import read_landing
from spark_jobs.settle_rows import settle_conflicts, settle_duplicates
from spark_jobs.write_day import DayTables, write_day


class TextMissingError(RuntimeError):
    """A behavior_key is needed whose text is in no dictionary."""


def dedup_behaviors(spark: SparkSession, plan: DedupPlan) -> dict[str, Any]:
    """Write the day's partitions and return its counts, which are the same in every run over the same landing.

    Counts of catch-up partitions stand in the commits of their tables. Raises `RowsLostError`, `TextMissingError`.
    """
    with ExitStack() as cached:
        rows = {source: _settle(spark, plan, source, cached) for source in SOURCES}
        counts = count_rows(rows, days={source: plan.days_of(source) for source in SOURCES})
        tables = _derive(spark, plan, rows, cached)
        day_counts = {source: counts[source][plan.day] for source in SOURCES}
        stage_counts = day_counts["impressions"] | day_counts | _count_derived(tables, plan.day)
        write_day(spark, tables, plan=plan, source_counts=counts, stage_counts=stage_counts)
    return stage_counts


def _settle(spark: SparkSession, plan: DedupPlan, source: str, cached: ExitStack) -> SourceRows:
    landed = read_landing(spark, f"{plan.landing_dir.rstrip('/')}/{source}", days=plan.days_of(source))
    if source == "impressions":
        judged = _keep(judge_impressions(landed, landing=plan.landing), cached)
        settled = settle_conflicts(judged, key="impression_id", content=IMPRESSION_CONTENT)
    elif source == "items":
        judged = _keep(judge_items(landed, late_days=plan.landing.late_days), cached)
        settled = settle_duplicates(judged, content=ITEM_CONTENT)
    else:
        judged = _keep(judge_events(landed, late_days=plan.landing.late_days), cached)
        settled = settle_duplicates(judged, content=EVENT_CONTENT)
    return SourceRows(judged, settled._replace(kept=_keep(settled.kept, cached)))


def _derive(spark: SparkSession, plan: DedupPlan, rows: Mapping[str, SourceRows], cached: ExitStack) -> DayTables:
    """Build every table of the day out of the rows just settled and the partitions of earlier days."""
    kept = {source: rows[source].settled.kept for source in SOURCES}
    oldest_event = plan.day - timedelta(days=plan.sequences.history_days - 1)
    earlier = {name: read_delta(spark, plan.tables_dir, name) for name in _TABLES_READ}

    def readable(name: str, fresh: DataFrame, written: frozenset[date], first: date | None) -> DataFrame:
        """Rows of dt in [first, D] that may be read: those of earlier runs, and for `written` days the fresh ones."""
        unread = written | plan.excluded_days
        old = earlier[name].where(_not_in(unread) & (F.col("dt") <= F.lit(plan.day)))
        old = old if first is None else old.where(F.col("dt") >= F.lit(first))
        return old.select(*fresh.columns).union(fresh.where(_not_in(plan.excluded_days)))

    events = readable(
        "behavior_events", kept["behavior_events"].drop("copies"), plan.days_of("behavior_events"), oldest_event
    )
    items = readable("items", kept["items"].drop("copies"), plan.days_of("items"), None)
    today = kept["impressions"].drop("copies")
    sequences = _keep(
        build_sequences(events, today, sequences=plan.sequences).withColumn("dt", F.lit(plan.day)), cached
    )
    impressions = _keep(sequence_ends(look_up_items(today, items), sequences), cached)
    texts = _keep(new_texts(kept["behavior_events"], kept["items"], earlier["atomic_behaviors"]), cached)
    needed = needed_keys(
        events=kept["behavior_events"].where(F.col("dt") == F.lit(plan.day)),
        sequences=readable(
            "user_sequences", sequences.select("dt", "behavior_keys"), frozenset({plan.day}), plan.needed_from
        ),
        impressions=readable(
            "impressions", impressions.select("dt", "title_key"), frozenset({plan.day}), plan.needed_from
        ),
    )
    marked = mark_new(needed, earlier["behavior_embeddings"], encoder_version=plan.encoder_version, day=plan.day)
    dictionary = earlier["atomic_behaviors"].union(texts)
    with_text = _keep(marked.join(dictionary, "behavior_key", "left"), cached)
    return DayTables(rows=rows, sequences=sequences, impressions=impressions, texts=texts, needed=with_text)


_TABLES_READ = ("behavior_events", "items", "impressions", "user_sequences", "atomic_behaviors", "behavior_embeddings")


def _count_derived(tables: DayTables, day: date) -> dict[str, Any]:
    """Count in one job what the day needs and holds; the tables' cached rows come to be here."""
    needed = tables.needed.select(
        F.count("*").alias("needed"),
        F.count_if("is_new").alias("new"),
        F.count_if(F.col("text").isNull() & F.col("is_new")).alias("without_text"),
    )
    sequences = tables.sequences.select(
        F.count("*").alias("sequences"), F.coalesce(F.sum("capped"), F.lit(0)).alias("capped")
    )
    row = needed.crossJoin(sequences).first()
    assert row is not None  # a global aggregate always has one row
    if row["without_text"]:
        raise TextMissingError(
            f"{row['without_text']} behaviors needed on {day} have no text in atomic_behaviors, which was perhaps removed: "
            "delete the tables folder and backfill it from the landing"
        )
    return {
        "needed_behaviors": row["needed"],
        "new_behaviors": row["new"],
        "reuse_rate": 1 - row["new"] / row["needed"] if row["needed"] else 1.0,
        "sequences": row["sequences"],
        "capped_behaviors": row["capped"],
    }


def _keep(frame: DataFrame, cached: ExitStack) -> DataFrame:
    """Compute a frame that is read several times only once, until the job ends."""
    kept = frame.persist()
    cached.callback(kept.unpersist)
    return kept


def _not_in(days: Collection[date]) -> Any:
    return ~F.col("dt").isin(*sorted(days)) if days else F.lit(True)
