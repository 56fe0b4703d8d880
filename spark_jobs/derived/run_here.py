"""Runs the steps of a day of few rows: once each, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.delta_tables import scan_table
from spark_jobs.derived.steps import Made, Part, Step, part_of, rows_in


class Here:
    """A `Runner` of settled rows that are in memory."""

    def __init__(self, tables_dir: str | Path, kept: Mapping[str, pa.Table]) -> None:
        self._tables_dir, self._kept = tables_dir, kept

    def run(self, step: Step, inputs: Mapping[str, Sequence[Part]]) -> Made:
        made: Made = {}
        for kind, rows in step.work({kind: rows_in(inputs[kind]) for kind in step.keys}):
            made.setdefault(kind, []).append(part_of(rows))
        return made

    def settled(self, source: str, columns: Sequence[str] | None = None, *, coded: bool = False) -> list[Part]:
        rows = self._kept[source]
        return [part_of(rows if columns is None else rows.select(list(columns)))]

    def stored(
        self, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None = None
    ) -> list[Part]:
        return [Part(partial(_scanned, self._tables_dir, name, tuple(columns), partitions, filters), 0)]


def _scanned(
    tables_dir: str | Path, name: str, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None
) -> Iterator[pa.Table]:
    for batch in scan_table(tables_dir, name, columns=columns, partitions=partitions, filters=filters):
        yield pa.Table.from_batches([batch])
