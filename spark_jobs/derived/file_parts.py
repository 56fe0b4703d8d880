"""Rows that lie in parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.derived.steps import Part, mapped
from spark_jobs.landing_files import bytes_of, open_file

ROWS_AT_ONCE = 1 << 17


def part_of_file(file: str, num_bytes: int) -> Part:
    """Return the rows of a parquet file, all of its columns."""
    return Part(partial(_of_file, file, None), num_bytes, file)


def parts_of_files(files: Sequence[str]) -> list[Part]:
    """Return the rows of each parquet file."""
    return [part_of_file(file, num_bytes) for file, num_bytes in zip(files, bytes_of(files), strict=True)]


def selected(parts: Iterable[Part], columns: Sequence[str]) -> list[Part]:
    """Return some columns of the rows of parts; of a file others are not read."""
    return [
        Part(partial(_of_file, part.file, tuple(columns)), part.num_bytes)
        if part.file
        else mapped([part], partial(_select, columns=tuple(columns)))[0]
        for part in parts
    ]


def _of_file(file: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    with open_file(file) as source:
        for batch in pq.ParquetFile(source).iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


def _select(rows: pa.Table, *, columns: Sequence[str]) -> pa.Table:
    return rows.select(list(columns))
