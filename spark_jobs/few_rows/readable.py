"""Rows that a run may read: those earlier runs wrote, and for days this run writes the fresh ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import scan_table
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days


def readable(
    plan: DedupPlan,
    name: str,
    fresh: pa.Table,
    *,
    columns: Sequence[str],
    first: date | None,
    filters: pc.Expression | None = None,
) -> Iterator[pa.Table]:
    """Yield the columns of the rows of dt in [first, D] that satisfy `filters`, without refused days: the fresh rows first."""
    dt = pc.field("dt")
    may_be_read = dt <= pa.scalar(plan.day)
    if first is not None:
        may_be_read &= dt >= pa.scalar(first)
    if plan.excluded_days:
        may_be_read &= ~dt.isin(pa.array(sorted(plan.excluded_days), pa.date32()))
    if filters is not None:
        may_be_read &= filters
    schema = pa.schema([arrow_schema(name).field(column) for column in columns])
    yield fresh.filter(may_be_read).select(columns).cast(schema)
    wanted = f"dt <= '{plan.day}'" if first is None else f"dt >= '{first}' AND dt <= '{plan.day}'"
    refused = f" AND NOT {in_days(plan.excluded_days)}" if plan.excluded_days else ""
    written_before = f"{wanted}{refused} AND NOT {in_days(plan.days_of(name))}"
    for batch in scan_table(plan.tables_dir, name, columns=columns, partitions=written_before, filters=filters):
        yield pa.Table.from_batches([batch]).cast(schema)
