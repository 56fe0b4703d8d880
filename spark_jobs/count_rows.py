"""How many landed rows went where, for each source and day, and the check that none is lost."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.settle_rows import Settled


class RowsLostError(RuntimeError):
    """Landed rows are not the sum of table rows, duplicates and quarantined rows."""


class SourceRows(NamedTuple):
    """One source on its way: every landed row judged, and where each went."""

    judged: DataFrame
    settled: Settled


def count_rows(
    sources: Mapping[str, SourceRows], *, days: Mapping[str, Collection[date]]
) -> dict[str, dict[date, dict[str, Any]]]:
    """Return for each source and each of its days: landed, rows, duplicates, quarantined, reasons, unknown_columns.

    A day without rows has zeros. Raises `RowsLostError` unless landed = rows + duplicates + quarantined.
    """
    tallies = [tally.withColumn("source", F.lit(name)) for name, rows in sources.items() for tally in _tallies(rows)]
    counted = (
        functools.reduce(DataFrame.union, tallies)
        .groupBy("source", "dt", "reason")
        .agg(
            *[F.sum(c).alias(c) for c in _SUMS], F.array_distinct(F.flatten(F.collect_set("unknown"))).alias("unknown")
        )
    )
    counts = {name: {day: _nothing() for day in sorted(days[name])} for name in sources}
    for row in counted.collect():
        entry = counts[row["source"]][row["dt"]]
        for name in _SUMS:
            entry[name] += row[name]
        if row["reason"]:
            entry["reasons"][row["reason"]] = row["quarantined"]
        entry["unknown_columns"] = sorted({*entry["unknown_columns"], *row["unknown"]})
    for name, by_day in counts.items():
        for day, entry in by_day.items():
            entry["reasons"] = dict(sorted(entry["reasons"].items()))
            _check(name, day, entry)
    return counts


_SUMS = ("landed", "rows", "duplicates", "quarantined")


def _tallies(rows: SourceRows) -> list[DataFrame]:
    """The same narrow columns from the judged, the kept and the quarantined rows, to be summed in one pass."""
    no_reason, no_names = F.lit(None).cast("string"), F.lit(None).cast("array<string>")
    one, none = F.lit(1), F.lit(0)
    wanted = ("dt", *_SUMS, "reason", "unknown")

    def tally(frame: DataFrame, **columns: Any) -> DataFrame:
        return frame.select(
            "dt",
            *[columns[name].cast("bigint").alias(name) for name in _SUMS],
            columns["reason"].alias("reason"),
            columns["unknown"].alias("unknown"),
        ).select(*wanted)

    return [
        tally(
            rows.judged,
            landed=one,
            rows=none,
            duplicates=none,
            quarantined=none,
            reason=no_reason,
            unknown=F.col("unknown"),
        ),
        tally(
            rows.settled.kept,
            landed=none,
            rows=one,
            duplicates=F.col("copies") - 1,
            quarantined=none,
            reason=no_reason,
            unknown=no_names,
        ),
        tally(
            rows.settled.quarantined,
            landed=none,
            rows=none,
            duplicates=none,
            quarantined=one,
            reason=F.col("reason"),
            unknown=no_names,
        ),
    ]


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(_SUMS, 0), "reasons": {}, "unknown_columns": []}


def _check(source: str, day: date, entry: dict[str, Any]) -> None:
    if entry["landed"] != entry["rows"] + entry["duplicates"] + entry["quarantined"]:
        raise RowsLostError(
            f"{source} dt={day}: {entry['landed']} landed rows are not {entry['rows']} table rows + {entry['duplicates']} duplicates "
            f"+ {entry['quarantined']} quarantined; nothing was written. Did a landed file change while it was read? Run the day again"
        )
