"""Rows of a log that is being made, and the landing files they become."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from bahe_tasks.sources.landing_files import json_lines, landing_file, write_whole

Source = Literal["impressions", "behavior_events", "items"]
FIRST_DAY = date(2013, 1, 1)
"""Of logs that have no calendar of their own."""


class Row(NamedTuple):
    """A row of a landed source (docs/contract.md)."""

    source: Source
    day: date
    values: dict[str, Any]


def land(rows: Iterable[Row], landing: Path, *, name: str) -> dict[Source, int]:
    """Write the rows to LANDING/SOURCE/dt=DAY/NAME.jsonl in the order they come; return how many of each source."""
    files: dict[tuple[Source, date], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        files[row.source, row.day].append(row.values)
    counts: dict[Source, int] = defaultdict(int)
    for (source, day), values in files.items():
        write_whole(landing_file(landing, source, day, f"{name}.jsonl"), json_lines(values))
        counts[source] += len(values)
    return dict(counts)


def records(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table, columns by name."""
    yield from table.itertuples()


def minute_of(day: date, minute: int) -> str:
    """Return the time so many minutes into a day as the contract writes it."""
    return instant(datetime(day.year, day.month, day.day) + timedelta(minutes=minute))


def instant(at: datetime) -> str:
    """Return a time of UTC as the contract writes it."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
