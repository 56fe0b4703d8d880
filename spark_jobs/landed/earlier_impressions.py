"""Impressions that landed on a day before: a late row may be one of them delivered again.

Whoever ships a log at least once may land a day's rows with the next day's too. There they look late, and would be trained on,
and counted, a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.arrow_columns import day_numbers, micros, whole
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.readable import written_before

_SAME = ("user_id", "item_id", "shown_at", "label", "label_known_at", "labels")
"""What two deliveries of an impression have in common; the table holds its `cat_*` and `num_*` with its item's."""

STORED = ("impression_id", *_SAME)
"""What is read of the table."""

StoredOf = Callable[[pa.Table], pa.Table]
"""Late rows ↦ STORED of rows of days before, those with the impression_id of one of them at least."""


def delivered_again(rows: pa.Table, stored_of: StoredOf) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a day's impressions are in the table from a day before, and which contradict one that is, (R,) bool each.

    `rows` have dt and STORED.
    """
    again, contradicts = np.zeros((2, len(rows)), bool)
    is_late = _is_late(rows)
    if not is_late.any():
        return again, contradicts
    late = rows.filter(pa.array(is_late)).select(STORED)
    stored = stored_of(late).select(STORED)
    contents: dict[object, set[tuple[object, ...]]] = {}
    for impression_id, *content in _tuples(stored.filter(_has_id_of(late, stored))):
        contents.setdefault(impression_id, set()).add(tuple(content))
    of_late = [(tuple(content), contents.get(impression_id, set())) for impression_id, *content in _tuples(late)]
    again[is_late] = [content in stored_contents for content, stored_contents in of_late]
    contradicts[is_late] = [bool(stored_contents) for _, stored_contents in of_late]
    return again, contradicts & ~again


def late_since(rows: pa.Table) -> date | None:
    """Return the earliest day on which a late one of these impressions was shown, None where none is late."""
    late = rows.filter(pa.array(_is_late(rows)))
    return _first_day(late) if len(late) else None


def days_before(plan: DedupPlan, since: date) -> str:
    """Return the partitions of the table that may hold impressions shown on `since` or later, of days before D that may be read."""
    return written_before(plan, "impressions", first=since)


def read_stored(late: pa.Table, plan: DedupPlan) -> pa.Table:
    """Return STORED of the rows of days before with the impression_id of a late one."""
    partitions = days_before(plan, _first_day(late))

    def stored(columns: Sequence[str], ids: pa.ChunkedArray) -> pa.Table:
        has_id = pc.field("impression_id").isin(whole(ids))
        return read_table(plan.tables_dir, "impressions", columns=columns, partitions=partitions, filters=has_id)

    met = stored(["impression_id"], late["impression_id"])  # mostly none: the other columns are not read
    return stored(STORED, met["impression_id"]) if len(met) else late.slice(0, 0)


def _is_late(rows: pa.Table) -> np.ndarray:
    return micros(rows["shown_at"]) < day_numbers(rows["dt"]) * DAY_US


def _first_day(rows: pa.Table) -> date:
    return date(1970, 1, 1) + timedelta(days=int(micros(rows["shown_at"]).min()) // DAY_US)


def _has_id_of(late: pa.Table, stored: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(stored["impression_id"], whole(late["impression_id"]))


def _tuples(rows: pa.Table) -> list[tuple[object, ...]]:
    """Return rows as tuples of values that can be compared and hashed."""
    columns = [
        [tuple(sorted(value or ())) for value in column.to_pylist()]
        if pa.types.is_map(column.type)
        else column.to_pylist()
        for column in rows.columns
    ]
    return list(zip(*columns, strict=True))
