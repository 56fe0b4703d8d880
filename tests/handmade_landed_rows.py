"""Frames of landed rows written by hand, as a benchmark reads them from a landing folder."""

from __future__ import annotations

import pandas as pd

from benchmarks.kit.next_day import LandedRows, start_us


def landed_rows(*, impressions=(), events=(), items=()):
    """Frames of rows given as (day, hour of the row's own time, columns)."""
    keys = {"impressions": "shown_at", "behavior_events": "occurred_at", "items": "updated_at"}
    frames = {}
    for (source, time), rows in zip(keys.items(), (impressions, events, items), strict=True):
        timed = [
            {time: start_us(day) + hour * 3_600_000_000, "landed_from": start_us(day), **columns}
            for day, hour, columns in rows
        ]
        empty = pd.DataFrame(columns=[time, "landed_from", "user_id", "item_id", "impression_id"])
        frames[source] = pd.DataFrame(timed) if timed else empty
    return LandedRows(frames)


def shown(number, user, item, **columns):
    return {"impression_id": f"m{number}", "user_id": user, "item_id": item, **columns}
