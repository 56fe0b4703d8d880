"""The commits of a day, in an order that lets a run be killed between any two of them.

Dictionary and quarantine come first: a commit of items or behavior_events says that a catch-up partition was taken in,
and its landing is never read again. So does that of user_sequences, which says that the day was begun: until the commit
of impressions, the last one, says the same of the same inputs, no other day reads its rows (`stages.days_in_force`).

Unusual: commits that do not depend on each other run side by side, since most of a small commit is waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import pyarrow.compute as pc

from bahe_tasks.schemas import SOURCES
from bahe_tasks.stores.delta_tables import data_files
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import Rows, append_rows, in_days, overwrite_partitions
from spark_jobs.derived.derive import Derived
from spark_jobs.derived.file_parts import selected
from spark_jobs.derived.steps import rows_in
from spark_jobs.gather_behaviors import Behaviors
from spark_jobs.side_by_side import side_by_side

DayTables = Mapping[str, Rows]
"""Everything a run is about to write, by table. Of the sources the rows of all partitions that are taken in; of
atomic_behaviors the texts that it lacks."""


class DerivedCounts(NamedTuple):
    """What is counted of the derived tables."""

    needed: int
    new: int
    without_text: int  # of the new
    sequences: int
    capped: int


def count_derived(behaviors: Behaviors, derived: Derived) -> DerivedCounts:
    """Count what is written of the derived tables."""
    capped = [rows["capped"] for rows in rows_in(selected(derived.sequences, ["capped"]))]
    return DerivedCounts(
        needed=behaviors.num_needed,
        new=behaviors.num_new,
        without_text=behaviors.num_without_text,
        sequences=sum(map(len, capped)),
        capped=sum(pc.sum(of_part).as_py() or 0 for of_part in capped),
    )


def write_day(
    tables: DayTables,
    *,
    plan: DedupPlan,
    source_counts: Mapping[str, Mapping[date, dict[str, Any]]],
    stage_counts: dict[str, Any],
) -> None:
    """Write all tables. `source_counts`: per source and partition; `stage_counts`: of the day, recorded last."""
    day = str(plan.day)

    def seen(source: str, dt: date) -> dict[str, int]:
        times = plan.landed_times.get(source, {}).get(dt)
        return {"landing_ns": times.newest if times else 0}

    def record(counts: Mapping[str, Any]) -> dict[str, Any]:
        return {day: {"input_fingerprint": plan.input_fingerprint, "counts": dict(counts)}}

    def write_texts() -> None:
        name = "atomic_behaviors"
        append_rows(tables[name], tables_dir=plan.tables_dir, name=name, partitions=record({}))

    def write_source(source: str) -> None:
        overwrite_partitions(
            tables[source],
            tables_dir=plan.tables_dir,
            name=source,
            where=in_days(plan.days_of(source)),
            partitions={
                str(dt): {"input_fingerprint": plan.ingest.get(source, {}).get(dt, ""), "counts": counts}
                | seen(source, dt)
                for dt, counts in source_counts[source].items()
            },
        )

    def write_derived(name: str, partitions: dict[str, Any]) -> None:
        overwrite_partitions(
            tables[name], tables_dir=plan.tables_dir, name=name, where=in_days([plan.day]), partitions=partitions
        )

    side_by_side(
        write_texts,
        partial(_write_quarantine, tables["quarantine"], plan, source_counts),
        partial(write_derived, "user_sequences", record({"sequences": stage_counts["sequences"]})),
    )
    side_by_side(
        partial(write_source, "items"),
        partial(write_source, "behavior_events"),
        partial(write_derived, "new_behaviors", record({"new_behaviors": stage_counts["new_behaviors"]})),
        partial(write_derived, "running_sums", record({})),
    )
    landed = {"landed": plan.ingest["impressions"][plan.day]} | seen("impressions", plan.day)
    write_derived("impressions", {dt: entry | landed for dt, entry in record(stage_counts).items()})


def _write_quarantine(rows: Rows, plan: DedupPlan, source_counts: Mapping[str, Mapping[date, dict[str, Any]]]) -> None:
    """Replace the quarantine of every partition taken in; no commit where there was and is none."""
    where = " OR ".join(f"(source_table = '{source}' AND {in_days(plan.days_of(source))})" for source in SOURCES)
    quarantined: dict[str, dict[str, int]] = {}
    for source in SOURCES:
        for dt, counts in source_counts[source].items():
            quarantined.setdefault(str(dt), {})[source] = counts["quarantined"]
    nothing_new = not any(sum(by_source.values()) for by_source in quarantined.values())
    if nothing_new and not data_files(plan.tables_dir, "quarantine", partitions=where):
        return
    overwrite_partitions(
        rows,
        tables_dir=plan.tables_dir,
        name="quarantine",
        where=where,
        partitions={
            dt: {"input_fingerprint": plan.input_fingerprint, "counts": counts} for dt, counts in quarantined.items()
        },
    )
