"""Flights: 105,000 departures from New York from January to April 2013, `nycflights13::flights`.

A "click" is an arrival more than 15 minutes late. The user is a plane, the item a flight number; events are the plane's flights
with their delay; a title is the first route that a number flew. A flight is landed at the time it was to leave: the time it did leave would give its delay away. Its
outcome is landed as if known at once, which it is not; how late others were says how the weather is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmarks.public_logs.rows import Row, instant, minute_of, records

LATE_MINUTES, LAST_MONTH = 15, 4


def rows(flights: pd.DataFrame, airlines: pd.DataFrame) -> Iterator[Row]:
    """Flights with year, month, day, hour, sched_dep_time (hhmm), arr_delay, carrier, flight, tailnum, origin, dest, distance.

    Airlines with carrier and name.
    """
    flights = flights[(flights.month <= LAST_MONTH) & flights.arr_delay.notna() & flights.tailnum.notna()]
    at = pd.to_datetime(flights[["year", "month", "day"]]) + pd.to_timedelta(
        (flights.sched_dep_time // 100 % 24) * 60 + flights.sched_dep_time % 100, unit="m"
    )
    names = airlines.set_index("carrier").name
    landed: set[str] = set()
    for number, flight in enumerate(records(flights.assign(at=at).sort_values("at", kind="stable"))):
        day, shown_at = flight.at.date(), instant(flight.at)
        text = f"{names[flight.carrier]}: {flight.origin} to {flight.dest}"
        who = {"user_id": flight.tailnum, "item_id": f"{flight.carrier}{int(flight.flight)}"}
        impression = {
            "impression_id": f"f{number}",
            **who,
            "shown_at": shown_at,
            "label": int(flight.arr_delay > LATE_MINUTES),
            "cat_origin": flight.origin,
            "cat_hour": str(int(flight.hour)),
            "num_distance": float(flight.distance),
        }
        yield Row("impressions", day, impression)
        event = {**who, "feature": "flew", "occurred_at": shown_at, "text": text, "value": float(flight.arr_delay)}
        yield Row("behavior_events", day, event)
        if who["item_id"] not in landed:
            landed.add(who["item_id"])
            columns = {"cat_carrier": flight.carrier, "cat_dest": flight.dest}
            yield Row(
                "items", day, {"item_id": who["item_id"], "title": text, "updated_at": minute_of(day, 0), **columns}
            )
