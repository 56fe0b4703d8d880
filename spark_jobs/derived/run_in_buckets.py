"""Runs the steps of a day of many rows: Spark brings the rows of a bucket of keys together, and a step runs for each.

What a step makes goes to files, one a bucket and kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import SparkSession

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import data_fragments
from spark_jobs.arrow_files import ROWS_A_BATCH, write_rows
from spark_jobs.derived.file_parts import part_of_file, selected
from spark_jobs.derived.steps import KEY_BITS, KeyOf, Made, Part, Step, some_at_once
from spark_jobs.exchange import Rows, Sender, attempt, send_rows, work_on_buckets
from spark_jobs.landing_files import bytes_of
from spark_jobs.shares import in_shares

_BYTES_AT_ONCE = 16 << 20
_UPPER_BITS, _LOWER_BITS = 32, KEY_BITS - 32
_MADE = "kind string, file string, num_bytes bigint"


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
        send = partial(_send, shares=shares, keys=dict(step.keys))
        sent = send_rows(self._spark, send, len(shares), folder=self._folder, name=step.name, buckets=self._buckets)
        rows = work_on_buckets(self._spark, partial(_work, step=step, folder=self._folder), sent.files, _MADE)
        made: Made = {}
        for row in sorted(rows, key=lambda row: row["file"]):
            made.setdefault(row["kind"], []).append(part_of_file(row["file"], row["num_bytes"]))
        return made

    def settled(self, source: str, columns: Sequence[str] | None = None, *, coded: bool = False) -> list[Part]:
        of_source = self._settled[source]
        return list(of_source) if columns is None else selected(of_source, columns, coded=coded)

    def stored(
        self, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None = None
    ) -> list[Part]:
        return stored_parts(self._tables_dir, name, columns=columns, partitions=partitions, filters=filters)


def stored_parts(
    tables_dir: str | Path,
    name: str,
    *,
    columns: Sequence[str],
    partitions: str | None,
    filters: pc.Expression | None = None,
) -> list[Part]:
    """Return columns of the rows of some partitions of a table that satisfy `filters`, file by file."""
    schema = arrow_schema(name)
    return [
        Part(partial(_of_fragment, fragment, schema, tuple(columns), filters), num_bytes)
        for fragment, num_bytes in data_fragments(tables_dir, name, partitions=partitions)
    ]


def _of_fragment(
    fragment: ds.Fragment, schema: pa.Schema, columns: Sequence[str], filters: pc.Expression | None
) -> Iterator[pa.Table]:
    batches = fragment.to_batches(
        schema=schema, columns=list(columns), filter=filters, batch_size=ROWS_A_BATCH, batch_readahead=1
    )
    for batch in batches:
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _send(
    number: int, sender: Sender, *, shares: Sequence[Sequence[tuple[str, Part]]], keys: Mapping[str, KeyOf]
) -> None:
    """Send the rows of a share, some megabytes at once: each bucket costs something for every table that is sent."""
    for kind, of_kind in groupby(shares[number], key=itemgetter(0)):
        for rows in some_at_once((rows for _, part in of_kind for rows in part.read()), _BYTES_AT_ONCE):
            sender.send(kind, rows, _bucket_of(keys[kind](rows), sender.buckets))


def _bucket_of(keys: pa.ChunkedArray | pa.Array, buckets: int) -> np.ndarray:
    """Return the bucket of each key, which has a range of them; those that are null are dealt out."""
    known = np.asarray(pc.fill_null(keys, -1), np.int64)
    return np.where(known < 0, np.arange(len(known)) % buckets, (known >> _LOWER_BITS) * buckets >> _UPPER_BITS)


def _work(bucket: int, rows: Rows, *, step: Step, folder: str) -> Iterator[tuple[str, str, int]]:
    """Run a step over a bucket; write what it makes and yield rows of _MADE."""
    for place, (kind, made) in enumerate(step.work({kind: rows.get(kind, ()) for kind in step.keys})):
        if len(made):
            file = f"{folder}/{step.name}-{bucket:06}-{kind}-{place}-{attempt()}.arrow"
            write_rows(file, made)
            yield kind, file, bytes_of([file])[0]
