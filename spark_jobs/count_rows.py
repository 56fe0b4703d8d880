"""How many landed rows went where, for each source and day, and the check that none is lost.

Unusual: landed rows are counted as they are read, by an observer of the running job, and everything else after the
rows were sorted out, so that the two sides of the check do not come from the same place.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from spark_jobs.settle_rows import Settled

_SUMS = ("rows", "duplicates", "quarantined")


class RowsLostError(RuntimeError):
    """Landed rows are not the sum of table rows, duplicates and quarantined rows."""


class SourceRows(NamedTuple):
    """One source: where each landed row went, and what was observed while they were read."""

    settled: Settled
    landed: Observation


def observe_landed(judged: DataFrame) -> tuple[DataFrame, Observation]:
    """Return the frame and the observation of its number of rows and of its unknown columns by day."""
    landed = Observation()
    names = F.when(F.size("unknown") > 0, F.struct("dt", "unknown"))
    return judged.observe(landed, F.count("*").alias("rows"), F.collect_set(names).alias("unknown")), landed


class FewRows(NamedTuple):
    """One source of few rows, in the driver."""

    kept: pa.Table
    quarantined: pa.Table
    seen: dict[str, Any]
    """What was observed while they were read."""


Counts = dict[str, dict[date, dict[str, Any]]]
"""source → day → landed, rows, duplicates, quarantined, reasons, unknown_columns; a day without rows has zeros."""


def count_rows(sources: Mapping[str, SourceRows], *, days: Mapping[str, Collection[date]]) -> Counts:
    """Return the counts of each source and each of its days.

    Raises `RowsLostError` unless landed = rows + duplicates + quarantined.
    """
    tallies = [tally.withColumn("source", F.lit(name)) for name, rows in sources.items() for tally in _tallies(rows)]
    counted = functools.reduce(DataFrame.union, tallies).groupBy("source", "dt", "reason")
    found = [row.asDict() for row in counted.agg(*[F.sum(c).alias(c) for c in _SUMS]).sort("reason").collect()]
    return _counts(found, {source: _observed(rows.landed) for source, rows in sources.items()}, days)


def count_few_rows(sources: Mapping[str, FewRows], *, days: Mapping[str, Collection[date]]) -> Counts:
    """Return what `count_rows` returns. Raises `RowsLostError`."""
    found = []
    for source, (kept, quarantined, _) in sources.items():
        of_kept = kept.group_by("dt").aggregate([("copies", "sum"), ([], "count_all")])
        for dt, copies, rows in zip(*(of_kept[c].to_pylist() for c in ("dt", "copies_sum", "count_all")), strict=True):
            found.append(
                {
                    "source": source,
                    "dt": dt,
                    "reason": None,
                    "rows": rows,
                    "duplicates": copies - rows,
                    "quarantined": 0,
                }
            )
        refused = quarantined.group_by(["dt", "reason"]).aggregate([([], "count_all")]).to_pylist()
        found += [
            {"source": source, "dt": row["dt"], "reason": row["reason"], "rows": 0, "duplicates": 0}
            | {"quarantined": row["count_all"]}
            for row in refused
        ]
    found.sort(key=lambda row: row["reason"] or "")
    return _counts(found, {source: rows.seen for source, rows in sources.items()}, days)


def few_rows(rows: SourceRows) -> FewRows:
    """Fetch a source into the driver."""
    kept = rows.settled.kept.toArrow()
    seen = _observed(rows.landed)
    # Where all that was read is in the table, nothing is left to be in quarantine: the query is spared.
    all_kept = seen["rows"] == (pc.sum(kept["copies"]).as_py() or 0)
    nothing = pa.schema([("dt", pa.date32()), *((name, pa.string()) for name in ("reason", "source_file", "raw"))])
    return FewRows(kept, nothing.empty_table() if all_kept else rows.settled.quarantined.toArrow().cast(nothing), seen)


def _counts(
    tallies: list[dict[str, Any]], seen: Mapping[str, dict[str, Any]], days: Mapping[str, Collection[date]]
) -> Counts:
    """`tallies`: source, dt, reason and the numbers of _SUMS; `seen`: what was observed of each source."""
    counts = {source: {day: _nothing() for day in sorted(days[source])} for source in seen}
    for row in tallies:
        entry = counts[row["source"]][row["dt"]]
        for name in _SUMS:
            entry[name] += row[name]
            entry["landed"] += row[name]
        if row["reason"]:
            entry["reasons"][row["reason"]] = row["quarantined"]
    for source, observed in seen.items():
        for found in observed["unknown"]:
            entry = counts[source][found["dt"]]
            entry["unknown_columns"] = sorted({*entry["unknown_columns"], *found["unknown"]})
        _check(source, landed=observed["rows"], accounted=sum(entry["landed"] for entry in counts[source].values()))
    return counts


def _observed(landed: Observation) -> dict[str, Any]:
    """Return what was observed; nothing where Spark left an empty source out of its plan and so observed nothing.

    Were it wrong to take that for zero rows, the check would find the rows that are accounted for and raise.
    """
    try:
        return landed.get
    except Py4JJavaError:
        return {"rows": 0, "unknown": []}


def _tallies(rows: SourceRows) -> list[DataFrame]:
    """The same narrow columns from the kept and the quarantined rows, to be summed in one pass."""
    kept, quarantined = rows.settled
    none, one = F.lit(0).cast("bigint"), F.lit(1).cast("bigint")
    return [
        kept.select("dt", F.lit(None).cast("string").alias("reason"), *_as_sums(one, F.col("copies") - 1, none)),
        quarantined.select("dt", "reason", *_as_sums(none, none, one)),
    ]


def _as_sums(*values: Any) -> list[Any]:
    return [value.alias(name) for name, value in zip(_SUMS, values, strict=True)]


def _nothing() -> dict[str, Any]:
    return {"landed": 0, **dict.fromkeys(_SUMS, 0), "reasons": {}, "unknown_columns": []}


def _check(source: str, *, landed: int, accounted: int) -> None:
    if landed != accounted:
        raise RowsLostError(
            f"{source}: {landed} landed rows were read but {accounted} are table rows, duplicates or quarantined; nothing "
            "was written. Did a landed file change while it was read? Run the day again"
        )
