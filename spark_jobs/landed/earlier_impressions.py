"""Impressions that landed on a day before: a late row may be one of them delivered again.

Whoever ships a log at least once may land a day's rows with the next day's too. There they look late, and would be trained on,
and counted, a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from spark_jobs.arrow_columns import day_numbers, micros, whole

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
    return first_day(late) if len(late) else None


def first_day(rows: pa.Table) -> date:
    """Return the earliest day on which one of the rows was shown."""
    return date(1970, 1, 1) + timedelta(days=int(micros(rows["shown_at"]).min()) // DAY_US)


def _is_late(rows: pa.Table) -> np.ndarray:
    return micros(rows["shown_at"]) < day_numbers(rows["dt"]) * DAY_US


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
