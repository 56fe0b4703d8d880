"""Every table of a day of few rows, in the driver."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import repeated
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.derive import derive
from spark_jobs.derived.needed_keys import needed_keys
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.steps import rows_in
from spark_jobs.gather_few import gather_behaviors
from spark_jobs.write_day import DayTables, DerivedCounts


def derive_few(plan: DedupPlan, kept: Mapping[str, pa.Table], quarantined: pa.Table) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write and what is counted of them. `kept`: the settled rows of each source."""
    run = Here(plan.tables_dir, kept)
    derived = derive(run, plan)
    impressions, sequences, state = (pa.concat_tables(rows_in(parts)) for parts in derived)
    events, items = kept["behavior_events"], kept["items"]
    of_today = events.filter(pc.field("dt") == pa.scalar(plan.day))
    behaviors = gather_behaviors(
        plan,
        landed=[(events, "behavior_key", "text"), (items, "title_key", "title")],
        needed=[of_today["behavior_key"], *(keys["behavior_key"] for keys in rows_in(needed_keys(run, plan, derived)))],
    )
    tables: dict[str, pa.Table] = {
        "atomic_behaviors": _behaviors(behaviors.unwritten),
        "new_behaviors": _behaviors(behaviors.new).append_column(
            "encoder_version", repeated(plan.encoder_version, pa.string(), len(behaviors.new))
        ),
        "user_sequences": sequences,
        "impressions": impressions,
        "running_sums": state,
        "behavior_events": events,
        "items": items,
        "quarantine": quarantined,
    }
    counts = DerivedCounts(
        needed=len(behaviors.needed),
        new=len(behaviors.new),
        without_text=sum(text is None for text in behaviors.new.values()),
        sequences=len(sequences),
        capped=pc.sum(sequences["capped"]).as_py() or 0,
    )
    return {name: _fitted(plan, name, rows) for name, rows in tables.items()}, counts


def _behaviors(texts: Mapping[str, str | None]) -> pa.Table:
    return pa.table(
        {"behavior_key": pa.array(list(texts), pa.string()), "text": pa.array(list(texts.values()), pa.string())}
    )


def _fitted(plan: DedupPlan, name: str, rows: pa.Table) -> pa.Table:
    """Return rows with the columns of their table; of derived tables all are the day's."""
    if "dt" in dict(TABLES[name].columns) and "dt" not in rows.column_names:
        rows = rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
    return rows.select(TABLES[name].column_names).cast(arrow_schema(name))
