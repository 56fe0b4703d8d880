"""Outcome values as defined, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from handmade_rows import DAY_US, Event, Impression


def slow_outcome_value(shown: Impression, events: Sequence[Event]) -> float | None:
    """Return the value of the user's first event with one about the item, from shown_at to the end of dt; of equal times the largest."""
    if shown.shown_us < shown.dt * DAY_US:
        return None
    happened = [
        (event.occurred_us, -event.value)
        for event in events
        if event.value is not None
        and (event.user, event.item) == (shown.user, shown.item)
        and event.dt <= shown.dt
        and shown.shown_us <= event.occurred_us < (shown.dt + 1) * DAY_US
    ]
    return -min(happened)[1] if happened else None
