"""Rows that a run may read: those earlier runs wrote, and for days this run writes the fresh ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.derived.steps import Part, Runner, mapped, where


def readable(
    run: Runner,
    plan: DedupPlan,
    name: str,
    *,
    columns: Sequence[str],
    first: date | None,
    last: date | None = None,
    filters: pc.Expression | None = None,
) -> list[Part]:
    """Return columns of the rows of dt in [first, last], or [first, D], that satisfy `filters`, without excluded days: the fresh rows first."""
    may_be_read = pc.field("dt") <= pa.scalar(last or plan.day)
    if first is not None:
        may_be_read &= pc.field("dt") >= pa.scalar(first)
    if plan.excluded_days:
        may_be_read &= ~pc.field("dt").isin(pa.array(sorted(plan.excluded_days), pa.date32()))
    if filters is not None:
        may_be_read &= filters
    schema = pa.schema([arrow_schema(name).field(column) for column in columns])
    fresh = where(run.settled(name, columns), may_be_read)
    stored = run.stored(
        name, columns=columns, partitions=written_before(plan, name, first=first, last=last), filters=filters
    )
    return mapped([*fresh, *stored], partial(_fitted, schema=schema))


def written_before(plan: DedupPlan, name: str, *, first: date | None, last: date | None = None) -> str:
    """Return which stored partitions of dt in [first, last], or [first, D], may be read, but for those that this run writes."""
    wanted = f"dt <= '{last or plan.day}'"
    if first is not None:
        wanted += f" AND dt >= '{first}'"
    excluded = f" AND NOT {in_days(plan.excluded_days)}" if plan.excluded_days else ""
    return f"{wanted}{excluded} AND NOT {in_days(plan.days_of(name))}"


def _fitted(rows: pa.Table, *, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).cast(schema)
