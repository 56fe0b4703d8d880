"""How many landed rows went where, for each source and day, and the check that none is lost.

Unusual: landed rows are counted as they are read, and everything else after the rows were sorted out, so that the two sides
of the check do not come from the same place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from spark_jobs.settled_rows import SettledRows

_SUMS = ("rows", "duplicates", "quarantined")


class RowsLostError(RuntimeError):
    """Landed rows are not the sum of table rows, duplicates and quarantined rows."""


Counts = dict[str, dict[date, dict[str, Any]]]
"""source → day → landed, rows, duplicates, quarantined, reasons, unknown_columns; a day without rows has zeros."""


def count_rows(sources: Mapping[str, SettledRows[Any]], *, days: Mapping[str, Collection[date]]) -> Counts:
    """Return the counts of each source and each of its days.

    Raises `RowsLostError` unless landed = rows + duplicates + quarantined.
    """
    counts = {source: {day: _nothing() for day in sorted(days[source])} for source in sources}
    for source, settled in sources.items():
        for tally in sorted(settled.tallies, key=lambda tally: tally["reason"] or ""):
            entry = counts[source][tally["dt"]]
            for name in _SUMS:
                entry[name] += tally[name]
                entry["landed"] += tally[name]
            if reason := tally["reason"]:
                entry["reasons"][reason] = entry["reasons"].get(reason, 0) + tally["quarantined"]
        for day, column in settled.unknown:
            counts[source][day]["unknown_columns"].append(column)
        accounted = sum(entry["landed"] for entry in counts[source].values())
        if settled.landed != accounted:
            raise RowsLostError(
                f"{source}: {settled.landed} landed rows were read but {accounted} are table rows, duplicates or "
                "quarantined; nothing was written. Did a landed file change while it was read? Run the day again"
            )
    return counts


def _nothing() -> dict[str, Any]:
    return {"landed": 0, **dict.fromkeys(_SUMS, 0), "reasons": {}, "unknown_columns": []}
