"""The Spark job of stage dedup_behaviors: a landed day becomes tables (PAPER.md, "Every day").

Reads the landing, sends broken rows to quarantine, drops duplicates, builds point-in-time histories, and finds which
atomic behaviors are new.

Unusual: everything is computed before anything is written, and intermediate rows are kept in files,
not in Spark's cache: a commit to a table makes Spark throw away and recompute every cached frame that has read from it.
Of a day of few rows Spark settles the landed rows, and the driver does the rest; both ways take the same steps
(`spark_jobs.derived`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from bahe_tasks.landing import landed_times
from bahe_tasks.schemas import SOURCES
from spark_jobs.count_rows import count_rows
from spark_jobs.dedup_plan import DedupPlan as DedupPlan  # part of this job's interface
from spark_jobs.derive_few import derive_few
from spark_jobs.derive_many import derive_many
from spark_jobs.derived.steps import rows_in
from spark_jobs.settle_landing import settled_folder, settled_landing
from spark_jobs.settled_rows import SettledRows
from spark_jobs.write_day import DerivedCounts, write_day


class LandingChangedError(RuntimeError):
    """Landed files were written while they were read: what was read may be half of them, and is not kept."""


class TextMissingError(RuntimeError):
    """A behavior_key is needed whose text is in no dictionary."""


def dedup_behaviors(spark: SparkSession, plan: DedupPlan) -> dict[str, Any]:
    """Write the day's partitions and return its counts, which are the same in every run over the same landing.

    The counts are those of the day: per source and, beside them, those of impressions and of the derived tables.
    Counts of catch-up partitions stand in the commits of their tables. Raises `RowsLostError`, `TextMissingError`,
    `LandingChangedError`.
    """
    try:
        return _dedup_behaviors(spark, plan)
    except Exception:
        _check_unchanged(plan)  # a file may be broken, or gone, for being written just then
        raise


def _dedup_behaviors(spark: SparkSession, plan: DedupPlan) -> dict[str, Any]:
    with settled_landing(spark, plan) as sources:
        counts = count_rows(sources, days={source: plan.days_of(source) for source in SOURCES})
        if plan.is_small:
            kept = {source: pa.concat_tables(rows_in(rows.kept)) for source, rows in sources.items()}
            tables, derived = derive_few(plan, kept, _quarantine(sources))
        else:
            tables, derived = derive_many(spark, plan, sources, folder=settled_folder(plan.tables_dir, plan.day))
        day_counts = {source: counts[source][plan.day] for source in SOURCES}
        stage_counts = day_counts["impressions"] | day_counts | _derived_counts(derived, plan.day)
        _check_unchanged(plan)
        write_day(tables, plan=plan, source_counts=counts, stage_counts=stage_counts)
    return stage_counts


def _check_unchanged(plan: DedupPlan) -> None:
    """Raise `LandingChangedError` where a partition that is taken in is not as it was before it was read."""
    changed = [
        f"{source}/dt={dt}"
        for source, partitions in plan.landed_times.items()
        for dt, before in partitions.items()
        if landed_times(Path(plan.landing_dir), source, dt).files != before.files
    ]
    if changed:
        raise LandingChangedError(
            f"{', '.join(changed)} changed while the run read it; nothing was written. Run the day again, and land files "
            "under another name (.part) that are renamed when they are whole"
        )


def _quarantine(sources: Mapping[str, SettledRows[pa.Table]]) -> pa.Table:
    rows = [
        of.quarantined.append_column("source_table", pa.repeat(pa.scalar(source), len(of.quarantined)))
        for source, of in sources.items()
    ]
    return pa.concat_tables(rows)


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
