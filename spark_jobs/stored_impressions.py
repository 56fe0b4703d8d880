"""Impressions of the table that a late one of the day may be a delivery of again (`landed.earlier_impressions`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.arrow_columns import whole
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.readable import written_before
from spark_jobs.landed.earlier_impressions import STORED, first_day


def days_before(plan: DedupPlan, since: date) -> str:
    """Return the partitions of the table that may hold impressions shown on `since` or later, of days before D that may be read."""
    return written_before(plan, "impressions", first=since)


def read_stored(late: pa.Table, plan: DedupPlan) -> pa.Table:
    """Return STORED of the rows of days before with the impression_id of a late one."""
    partitions = days_before(plan, first_day(late))

    def stored(columns: Sequence[str], ids: pa.ChunkedArray) -> pa.Table:
        has_id = pc.field("impression_id").isin(whole(ids))
        return read_table(plan.tables_dir, "impressions", columns=columns, partitions=partitions, filters=has_id)

    met = stored(["impression_id"], late["impression_id"])  # mostly none: the other columns are not read
    return stored(STORED, met["impression_id"]) if len(met) else late.slice(0, 0)
