"""Which partitions of `running_sums` hold the state before a day.

The partition of dt holds the newest row of every key touched in (dt - n, dt], n the greatest power of 2 that divides the
days from 1970 to dt (a Fenwick tree over the calendar). So the state before a day lies in as many partitions as the
number of days has binary digits, and a key is written again as often, however old it is.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

_EPOCH = date(1970, 1, 1)


def days_held(day: date) -> int:
    """Return the number of days, `day` the last of them, whose keys are in the partition of `day`."""
    number = (day - _EPOCH).days
    return number & -number if number else 1


def state_cover(day: date, *, recorded: Collection[date], excluded: Collection[date] = ()) -> tuple[date, ...]:
    """Return the partitions whose newest rows are the state before `day`, newest first.

    `recorded`: the partitions that were ever written; `excluded`: those that may not be read. The state is that at the
    end of the first one returned.
    """
    readable = {d for d in recorded if d < day} - set(excluded)
    found: list[date] = []
    oldest = min(readable, default=day)
    place = day - timedelta(days=1)
    while place >= oldest:
        if place in readable:
            found.append(place)
            place -= timedelta(days=days_held(place))
        else:
            place -= timedelta(days=1)
    return tuple(found)


def days_to_merge(day: date, cover: Collection[date]) -> tuple[date, ...]:
    """Return those of the cover of `day` whose rows its own partition takes over."""
    return tuple(d for d in cover if d > day - timedelta(days=days_held(day)))
