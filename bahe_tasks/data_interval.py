"""Days: how a run learns which day it is for, and how days are written.

A run is for one calendar day D, the data interval [D, D+1) in UTC. Nothing here reads the clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from bahe_tasks.wrong_use import WrongUseError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class InvalidDayError(WrongUseError):
    """A day that is missing, malformed or ambiguous."""


def parse_day(text: str) -> date:
    """Return the day written as YYYY-MM-DD; raise `InvalidDayError` for anything else."""
    if not isinstance(text, str) or not _DAY.fullmatch(text):
        raise InvalidDayError(f"{text!r} is not a day; write it as YYYY-MM-DD, for example 2013-09-24")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidDayError(f"{text!r} is not a day of the calendar: {error}") from error


def days_between(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both included; nothing when `last` is before `first`."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def start_of(day: date) -> datetime:
    """Return the first instant of the day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def end_of(day: date) -> datetime:
    """Return the first instant after the day, UTC."""
    return start_of(day + timedelta(days=1))


def end_us(day: date) -> int:
    """Return the first instant after the day as microseconds since 1970."""
    return int(end_of(day).timestamp()) * 1_000_000


def day_of_run(data_interval_start: datetime | None, day_param: str | None) -> date:
    """Return the day an Airflow run is for.

    An explicit `day` parameter wins; else the run's data interval decides. A run with neither (a trigger from the
    web page without a date) raises `InvalidDayError`: guessing a day would train on the wrong data.
    """
    if day_param:
        return parse_day(day_param)
    if data_interval_start is None:
        raise InvalidDayError(
            "this run has no data interval and no `day` parameter: trigger it with a logical date, "
            'or with the configuration {"day": "YYYY-MM-DD"}'
        )
    start = data_interval_start.astimezone(UTC)
    return date(start.year, start.month, start.day)  # of Airflow's own class of dates, which Spark does not take
