"""Every table of a day of few rows, in the driver."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import repeated
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.derive import derive
from spark_jobs.derived.met_behaviors import met_behaviors
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.steps import rows_in, together
from spark_jobs.gather_behaviors import gather_behaviors
from spark_jobs.write_day import DayTables, DerivedCounts, count_derived


def derive_few(plan: DedupPlan, kept: Mapping[str, pa.Table], quarantined: pa.Table) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write and what is counted of them. `kept`: the settled rows of each source."""
    run = Here(plan.tables_dir, kept)
    derived = derive(run, plan)
    impressions, sequences, state = (pa.concat_tables(rows_in(parts)) for parts in derived)
    behaviors = gather_behaviors(plan, met_behaviors(run, plan, derived))
    tables: dict[str, pa.Table] = {
        "atomic_behaviors": together(rows_in(behaviors.unwritten), arrow_schema("atomic_behaviors")),
        "new_behaviors": together(rows_in(behaviors.new), arrow_schema("new_behaviors")),
        "user_sequences": sequences,
        "impressions": impressions,
        "running_sums": state,
        "behavior_events": kept["behavior_events"],
        "items": kept["items"],
        "quarantine": quarantined,
    }
    return {name: _fitted(plan, name, rows) for name, rows in tables.items()}, count_derived(behaviors, derived)


def _fitted(plan: DedupPlan, name: str, rows: pa.Table) -> pa.Table:
    """Return rows with the columns of their table; of derived tables all are the day's."""
    if "dt" in dict(TABLES[name].columns) and "dt" not in rows.column_names:
        rows = rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
    return rows.select(TABLES[name].column_names).cast(arrow_schema(name))
