"""The commits of a day, in an order that lets a run be killed between any two of them.

Dictionary and quarantine come first: a commit of items or behavior_events says that a catch-up partition was taken in,
and its landing is never read again. The commit of impressions comes last and says that the day is complete.

Unusual: commits that do not depend on each other run side by side, since most of a small commit is waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bahe_tasks.schemas import SOURCES
from bahe_tasks.stores.delta_tables import data_files
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import append_rows, in_days, overwrite_partitions
from spark_jobs.settle_rows import Settled
from spark_jobs.side_by_side import side_by_side


class DayTables(NamedTuple):
    """Everything a run is about to write."""

    settled: Mapping[str, Settled]
    """Per source, the rows of all partitions that are taken in."""
    sequences: DataFrame
    impressions: DataFrame
    behaviors: DataFrame
    """behavior_key, text, is_new and in_dictionary."""
    running_sums: DataFrame


def write_day(
    tables: DayTables,
    *,
    plan: DedupPlan,
    source_counts: Mapping[str, Mapping[date, dict[str, Any]]],
    stage_counts: dict[str, Any],
) -> None:
    """Write all tables. `source_counts`: per source and partition; `stage_counts`: of the day, recorded last."""
    day = str(plan.day)

    def record(counts: Mapping[str, Any]) -> dict[str, Any]:
        return {day: {"input_fingerprint": plan.input_fingerprint, "counts": dict(counts)}}

    def write_texts() -> None:
        texts = tables.behaviors.where("NOT in_dictionary")
        if not texts.isEmpty():
            append_rows(
                texts,
                tables_dir=plan.tables_dir,
                name="atomic_behaviors",
                partitions=record({}),
                may_be_few=plan.is_small,
            )

    def write_source(source: str) -> None:
        overwrite_partitions(
            tables.settled[source].kept,
            tables_dir=plan.tables_dir,
            name=source,
            where=in_days(plan.days_of(source)),
            partitions={
                str(dt): {"input_fingerprint": plan.ingest.get(source, {}).get(dt, ""), "counts": counts}
                for dt, counts in source_counts[source].items()
            },
            may_be_few=plan.is_small,
        )

    def write_derived(name: str, rows: DataFrame, counts: Mapping[str, Any]) -> None:
        overwrite_partitions(
            rows,
            tables_dir=plan.tables_dir,
            name=name,
            where=in_days([plan.day]),
            partitions=record(counts),
            may_be_few=plan.is_small,
        )

    new = tables.behaviors.where("is_new").withColumns(
        {"dt": F.lit(plan.day), "encoder_version": F.lit(plan.encoder_version)}
    )
    counted = {name: {name: stage_counts[name]} for name in ("sequences", "new_behaviors")}
    side_by_side(write_texts, lambda: _write_quarantine(tables, plan, source_counts))
    side_by_side(
        lambda: write_source("items"),
        lambda: write_source("behavior_events"),
        lambda: write_derived("user_sequences", tables.sequences, counted["sequences"]),
        lambda: write_derived("new_behaviors", new, counted["new_behaviors"]),
        lambda: write_derived("running_sums", tables.running_sums, {}),
    )
    write_derived("impressions", tables.impressions, stage_counts)


def _write_quarantine(
    tables: DayTables, plan: DedupPlan, source_counts: Mapping[str, Mapping[date, dict[str, Any]]]
) -> None:
    """Replace the quarantine of every partition taken in; no commit where there was and is none."""
    where = " OR ".join(f"(source_table = '{source}' AND {in_days(plan.days_of(source))})" for source in SOURCES)
    quarantined: dict[str, dict[str, int]] = {}
    for source in SOURCES:
        for dt, counts in source_counts[source].items():
            quarantined.setdefault(str(dt), {})[source] = counts["quarantined"]
    nothing_new = not any(sum(by_source.values()) for by_source in quarantined.values())
    if nothing_new and not data_files(plan.tables_dir, "quarantine", partitions=where):
        return
    frames = [tables.settled[source].quarantined.withColumn("source_table", F.lit(source)) for source in SOURCES]
    overwrite_partitions(
        frames[0].union(frames[1]).union(frames[2]),
        tables_dir=plan.tables_dir,
        name="quarantine",
        where=where,
        partitions={
            dt: {"input_fingerprint": plan.input_fingerprint, "counts": counts} for dt, counts in quarantined.items()
        },
        may_be_few=plan.is_small,
    )
