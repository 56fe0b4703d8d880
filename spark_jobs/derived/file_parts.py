"""Rows that lie in files between the steps of a day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.arrow_files import Reader
from spark_jobs.derived.steps import Part, mapped
from spark_jobs.landing_files import bytes_of


def part_of_file(file: str, num_bytes: int) -> Part:
    """Return the rows of an Arrow file, all of its columns."""
    return Part(partial(_of_file, file, None), num_bytes, file)


def parts_of_files(files: Sequence[str]) -> list[Part]:
    """Return the rows of each Arrow file."""
    return [part_of_file(file, num_bytes) for file, num_bytes in zip(files, bytes_of(files), strict=True)]


def selected(parts: Iterable[Part], columns: Sequence[str], *, coded: bool = False) -> list[Part]:
    """Return some columns of the rows of parts; of a file others are not read, but for their dictionaries.

    With `coded` the columns that a file holds by dictionary stay so.
    """
    return [
        Part(partial(_of_file, part.file, tuple(columns), coded=coded), part.num_bytes)
        if part.file
        else mapped([part], partial(_select, columns=tuple(columns)))[0]
        for part in parts
    ]


def plain(rows: pa.Table) -> pa.Table:
    """Return rows whose columns are values themselves, not numbers of them in a dictionary."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, pc.cast(rows[place], field.type.value_type))
    return rows


def _of_file(file: str, columns: Sequence[str] | None, *, coded: bool = False) -> Iterator[pa.Table]:
    with closing(Reader(file, columns)) as reader:
        for place in range(len(reader)):
            rows = reader.read(place)
            yield rows if coded else plain(rows)


def _select(rows: pa.Table, *, columns: Sequence[str]) -> pa.Table:
    return rows.select(list(columns))
