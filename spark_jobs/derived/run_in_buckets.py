"""Runs the steps of a day of many rows: Spark brings the rows of a bucket of keys together, and a step runs for each.

Unusual: rows pass Spark's shuffle as Arrow batches in a binary column, and what a step makes goes to files, one a bucket
and kind. Spark takes longer to turn rows into its own than the steps take to do their work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark import TaskContext
from pyspark.sql import SparkSession

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import data_fragments
from spark_jobs.derived import file_parts
from spark_jobs.derived.file_parts import part_of_file, selected, write_rows
from spark_jobs.derived.steps import KeyOf, Made, Part, Step
from spark_jobs.landed.contents import as_bytes, as_table, batch_of
from spark_jobs.landing_files import bytes_of
from spark_jobs.row_buckets import in_buckets
from spark_jobs.shares import in_shares

_MOVED = "bucket int, number bigint, kind string, content binary"
_MADE = "kind string, file string, num_bytes bigint"
_PARTS_A_SHARE = 1 << 32
"""More than there can be."""


class InBuckets:
    """A `Runner` of settled rows that are in files (source → files), whose results go to files in a folder."""

    def __init__(
        self,
        spark: SparkSession,
        *,
        tables_dir: str | Path,
        settled: Mapping[str, Sequence[Part]],
        folder: str,
        buckets: int,
    ) -> None:
        self._spark, self._tables_dir, self._settled = spark, tables_dir, settled
        self._folder, self._buckets = folder, buckets

    def run(self, step: Step, inputs: Mapping[str, Sequence[Part]]) -> Made:
        parts = [(kind, part) for kind in step.keys for part in inputs[kind]]
        shares = in_shares(parts, [part.num_bytes for _, part in parts])
        move = partial(_move, shares=shares, keys=dict(step.keys), buckets=self._buckets)
        moved = self._spark.range(0, len(shares), 1, max(len(shares), 1)).mapInArrow(move, _MOVED)
        folder = self._folder

        def work(bucket: pa.Table) -> pa.Table:
            return _work(bucket, step=step, folder=folder)

        made: Made = {}
        apart = moved.repartition(self._buckets, "bucket")  # else Spark joins small buckets to one task
        rows = apart.groupBy("bucket").applyInArrow(work, _MADE).toArrow().to_pylist()
        for row in sorted(rows, key=lambda row: row["file"]):
            made.setdefault(row["kind"], []).append(part_of_file(row["file"], row["num_bytes"]))
        return made

    def settled(self, source: str, columns: Sequence[str] | None = None, *, coded: bool = False) -> list[Part]:
        of_source = self._settled[source]
        return list(of_source) if columns is None else selected(of_source, columns, coded=coded)

    def stored(
        self, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None = None
    ) -> list[Part]:
        schema = arrow_schema(name)
        return [
            Part(partial(_of_fragment, fragment, schema, tuple(columns), filters), num_bytes)
            for fragment, num_bytes in data_fragments(self._tables_dir, name, partitions=partitions)
        ]


def _of_fragment(
    fragment: ds.Fragment, schema: pa.Schema, columns: Sequence[str], filters: pc.Expression | None
) -> Iterator[pa.Table]:
    batches = fragment.to_batches(
        schema=schema, columns=list(columns), filter=filters, batch_size=file_parts.ROWS_AT_ONCE, batch_readahead=1
    )
    for batch in batches:
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _move(
    batches: Iterable[pa.RecordBatch],
    *,
    shares: Sequence[Sequence[tuple[str, Part]]],
    keys: Mapping[str, KeyOf],
    buckets: int,
) -> Iterator[pa.RecordBatch]:
    """Read the shares whose numbers are given; yield their rows as rows of _MOVED."""
    for share in (number for batch in batches for number in batch["id"].to_pylist()):
        number = share * _PARTS_A_SHARE
        for kind, part in shares[share]:
            for rows in part.read():
                if len(rows):
                    moved = in_buckets(rows, _bucket_of(keys[kind](rows), buckets), buckets)
                    yield batch_of(_MOVED, [(bucket, number, kind, as_bytes(some)) for bucket, some in moved])
                    number += 1


def _bucket_of(keys: pa.ChunkedArray | pa.Array, buckets: int) -> np.ndarray:
    """Return the bucket of each key; those that are null are dealt out."""
    known = np.asarray(pc.fill_null(keys, -1), np.int64)
    return np.where(known < 0, np.arange(len(known)), known) % buckets


def _work(bucket: pa.Table, *, step: Step, folder: str) -> pa.Table:
    """Run a step over a bucket, given as rows of _MOVED; write what it makes and return rows of _MADE."""
    number = bucket["bucket"][0].as_py()
    parts: dict[str, list[tuple[int, pa.Buffer]]] = {kind: [] for kind in step.keys}
    for kind, order, content in zip(
        bucket["kind"].to_pylist(), bucket["number"].to_pylist(), bucket["content"], strict=True
    ):
        parts[kind].append((order, content.as_buffer()))
    read = {kind: _tables(sorted(of_kind, key=lambda part: part[0])) for kind, of_kind in parts.items()}
    attempt = TaskContext.get().taskAttemptId()  # type: ignore[union-attr]  # it runs in a task
    made: list[tuple[Any, ...]] = []
    for kind, rows in step.work(read):
        if len(rows):
            file = f"{folder}/{step.name}-{number:06}-{kind}-{len(made)}-{attempt}.arrow"
            write_rows(file, rows)
            made.append((kind, file, *bytes_of([file])))
    if not made:
        return pa.Table.from_batches([batch_of(_MADE, [("", "", 0)]).slice(0, 0)])
    return pa.Table.from_batches([batch_of(_MADE, made)])


def _tables(contents: Sequence[tuple[int, pa.Buffer]]) -> Iterator[pa.Table]:
    for _, content in contents:
        yield as_table(content)
