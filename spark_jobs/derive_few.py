"""Every table of a day of few rows, in the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_batches
from spark_jobs.arrow_columns import repeated
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.derived.derive import derive
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.steps import rows_in
from spark_jobs.gather_few import gather_behaviors
from spark_jobs.write_day import DayTables, DerivedCounts


def derive_few(plan: DedupPlan, kept: Mapping[str, pa.Table], quarantined: pa.Table) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write and what is counted of them. `kept`: the settled rows of each source."""
    derived = derive(Here(plan.tables_dir, kept), plan)
    impressions, sequences, state = (pa.concat_tables(rows_in(parts)) for parts in derived)
    events, items = kept["behavior_events"], kept["items"]
    of_today = events.filter(pc.field("dt") == pa.scalar(plan.day))
    behaviors = gather_behaviors(
        plan,
        landed=[(events, "behavior_key", "text"), (items, "title_key", "title")],
        needed=chain(
            [of_today["behavior_key"], pc.list_flatten(sequences["behavior_keys"]), impressions["title_key"]],
            _keys_of_window(plan, "user_sequences", "behavior_keys"),
            _keys_of_window(plan, "impressions", "title_key"),
        ),
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


def _keys_of_window(plan: DedupPlan, name: str, column: str) -> Iterator[pa.Array]:
    """Yield the keys in a column of the training and gate windows' earlier days, some thousand rows at a time."""
    wanted = f"dt >= '{plan.needed_from}' AND dt < '{plan.day}'"
    if plan.excluded_days:
        wanted += f" AND NOT {in_days(plan.excluded_days)}"
    for batch in read_batches(plan.tables_dir, name, columns=(column,), partitions=wanted):
        keys = batch[column]
        yield pc.list_flatten(keys) if pa.types.is_list(keys.type) else keys


def _behaviors(texts: Mapping[str, str | None]) -> pa.Table:
    return pa.table(
        {"behavior_key": pa.array(list(texts), pa.string()), "text": pa.array(list(texts.values()), pa.string())}
    )


def _fitted(plan: DedupPlan, name: str, rows: pa.Table) -> pa.Table:
    """Return rows with the columns of their table; of derived tables all are the day's."""
    if "dt" in dict(TABLES[name].columns) and "dt" not in rows.column_names:
        rows = rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
    return rows.select(TABLES[name].column_names).cast(arrow_schema(name))
