"""Rows that lie in files between the steps of a day: Arrow's own format, so that they are neither coded anew nor read whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.derived.steps import Part, mapped
from spark_jobs.landing_files import bytes_of, open_file, write_to

ROWS_AT_ONCE = 1 << 17


def write_rows(file: str, rows: pa.Table) -> None:
    """Write rows to a new file, of which a reader holds some at once."""
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with write_to(file) as sink, pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        writer.write_table(rows, max_chunksize=ROWS_AT_ONCE)


def part_of_file(file: str, num_bytes: int) -> Part:
    """Return the rows of a file, all of its columns."""
    return Part(partial(_of_file, file, None), num_bytes, file)


def parts_of_files(files: Sequence[str]) -> list[Part]:
    """Return the rows of each file."""
    return [part_of_file(file, num_bytes) for file, num_bytes in zip(files, bytes_of(files), strict=True)]


def selected(parts: Iterable[Part], columns: Sequence[str], *, coded: bool = False) -> list[Part]:
    """Return some columns of the rows of parts; of a file others are not read.

    With `coded` the columns that a file holds by dictionary stay so.
    """
    return [
        Part(partial(_of_file, part.file, tuple(columns), coded=coded), part.num_bytes)
        if part.file
        else mapped([part], partial(_select, columns=tuple(columns)))[0]
        for part in parts
    ]


def _of_file(file: str, columns: Sequence[str] | None, *, coded: bool = False) -> Iterator[pa.Table]:
    with open_file(file) as source:
        names = pa.ipc.open_file(source).schema.names
        fields = None if columns is None else [names.index(name) for name in columns]
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))
        for number in range(reader.num_record_batches):
            rows = pa.Table.from_batches([reader.get_batch(number)])
            yield (rows if coded else plain(rows)).select(columns or names)


def plain(rows: pa.Table) -> pa.Table:
    """Return rows whose columns are values themselves, not numbers of them in a dictionary."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, pc.cast(rows[place], field.type.value_type))
    return rows


def _select(rows: pa.Table, *, columns: Sequence[str]) -> pa.Table:
    return rows.select(list(columns))
