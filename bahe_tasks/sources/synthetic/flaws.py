"""What is wrong with real logs: rows that stand twice, and rows that cannot be used.

Flawed rows are added to the good ones, which stay as they are. A broken impression gets an id of its own, so that it
does not contradict the good row it was made from.
"""

from __future__ import annotations

from datetime import date

import numpy as np

from bahe_tasks.sources.synthetic.day_log import DAY_MS, Rows, iso_times, row_count, rows_at

TORN = "torn"
_BREAKAGES: dict[str, tuple[str, ...]] = {
    "behavior_events": ("user_id", "occurred_at", "feature", "text", "after_day", "too_late", TORN),
    "impressions": ("user_id", "shown_at", "label", "after_day", "too_late", TORN),
    "items": ("item_id", "updated_at", TORN),
}
_TIME_COLUMNS = {"behavior_events": "occurred_at", "impressions": "shown_at", "items": "updated_at"}
_FAR_DAYS = 30


def doubled_rows(rows: Rows, *, share: float, rng: np.random.Generator) -> Rows:
    """Return exact copies of a share of the rows."""
    count = row_count(rows)
    return rows_at(rows, rng.choice(count, round(share * count), replace=False))


def broken_rows(source: str, rows: Rows, day: date, *, share: float, rng: np.random.Generator) -> tuple[Rows, int]:
    """Return ruined copies of a share of the rows, every kind of ruin in turn, and how many of them, at the end, are
    to be torn: written as half a line."""
    count = row_count(rows)
    broken = rows_at(rows, rng.choice(count, round(share * count), replace=False))
    kinds = _BREAKAGES[source]
    size = row_count(broken)
    time_column = _TIME_COLUMNS[source]
    if "impression_id" in broken:
        broken["impression_id"] = broken["impression_id"] + "-broken"
    for number in range(size):
        kind = kinds[number % len(kinds)]
        if kind == time_column:
            broken[kind][number] = "yesterday"
        elif kind == "text":
            broken[kind][number] = " "
        elif kind == "label":
            broken[kind][number] = 2
        elif kind in ("after_day", "too_late"):
            ms = _FAR_DAYS * DAY_MS * (1 if kind == "after_day" else -1)
            broken[time_column][number] = iso_times(day, np.array([ms]))[0]
        elif kind != TORN:
            broken[kind][number] = None
    is_torn = np.arange(size) % len(kinds) == kinds.index(TORN)
    return rows_at(broken, np.argsort(is_torn, kind="stable")), int(is_torn.sum())
