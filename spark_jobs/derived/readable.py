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
from spark_jobs.derived.steps import Part, Runner, mapped


def readable(run: Runner, plan: DedupPlan, name: str, *, columns: Sequence[str], first: date | None) -> list[Part]:
    """Return columns, dt among them, of the rows of dt in [first, D], without refused days: the fresh rows first."""
    dt = pc.field("dt")
    may_be_read = dt <= pa.scalar(plan.day)
    if first is not None:
        may_be_read &= dt >= pa.scalar(first)
    if plan.excluded_days:
        may_be_read &= ~dt.isin(pa.array(sorted(plan.excluded_days), pa.date32()))
    schema = pa.schema([arrow_schema(name).field(column) for column in columns])
    wanted = f"dt <= '{plan.day}'" if first is None else f"dt >= '{first}' AND dt <= '{plan.day}'"
    refused = f" AND NOT {in_days(plan.excluded_days)}" if plan.excluded_days else ""
    written_before = f"{wanted}{refused} AND NOT {in_days(plan.days_of(name))}"
    return mapped(
        [
            *mapped(run.settled(name, columns), partial(_where, condition=may_be_read)),
            *run.stored(name, columns=columns, partitions=written_before),
        ],
        partial(_fitted, schema=schema),
    )


def _where(rows: pa.Table, *, condition: pc.Expression) -> pa.Table:
    return rows.filter(condition)


def _fitted(rows: pa.Table, *, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).cast(schema)
