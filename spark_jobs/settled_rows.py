"""What came out of settling a source, and how it comes from Spark's tasks to the driver."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Generic, NamedTuple, TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame

from spark_jobs.derived.steps import Part

SETTLED = "source string, kind string, content binary"
"""What tasks return: a source, and `tallies` or `seen` as json, or `kept` or `refused`, the file that has them."""

Rows = TypeVar("Rows", pa.Table, DataFrame)


class SettledRows(NamedTuple, Generic[Rows]):
    """One source: the table's rows with their number of `copies`, those for the quarantine, and how many there are."""

    kept: list[Part]
    quarantined: Rows
    tallies: list[dict[str, Any]]
    """`spark_jobs.landed.settle.tallies`, of parts."""
    landed: int
    """Counted as they were read."""
    unknown: list[tuple[date, str]]
    """Names of columns that the landing contract does not know, by day."""


def contents_by_source(rows: Iterable[Mapping[str, Any]], sources: Sequence[str]) -> dict[str, dict[str, list[bytes]]]:
    """Rows of SETTLED → source → kind → contents."""
    found: dict[str, dict[str, list[bytes]]] = {source: {} for source in sources}
    for row in rows:
        found[row["source"]].setdefault(row["kind"], []).append(row["content"])
    return found


def counted(contents: Mapping[str, Sequence[bytes]]) -> tuple[list[dict[str, Any]], int, list[tuple[date, str]]]:
    """Return tallies, landed and unknown of `SettledRows`."""
    tallies = [tally for content in contents.get("tallies", ()) for tally in json.loads(content)]
    seen = [of for content in contents.get("seen", ()) for of in json.loads(content)]
    unknown = sorted({(date.fromisoformat(of["dt"]), name) for of in seen for name in of["unknown"]})
    dated = [tally | {"dt": date.fromisoformat(tally["dt"])} for tally in tallies]
    return dated, sum(of["landed"] for of in seen), unknown
