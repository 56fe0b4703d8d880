"""Rows of parquet files, in the types that each file has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.rows import LandedRows, as_json
from spark_jobs.landing_files import open_file

_ROWS_AT_ONCE = 1 << 17


def read_parquet(piece: Piece) -> Iterator[LandedRows]:
    """Yield the rows of the piece's row groups. problem: invalid_utf8."""
    with open_file(piece.file) as file:
        batches = pq.ParquetFile(file).iter_batches(
            _ROWS_AT_ONCE, row_groups=list(range(piece.start, piece.end)), use_threads=False
        )
        for batch in batches:
            yield _rows(piece, batch)


def _rows(piece: Piece, batch: pa.RecordBatch) -> LandedRows:
    columns = {name: _plain(batch.column(n)) for n, name in reversed(list(enumerate(batch.schema.names)))}
    columns = dict(reversed(columns.items()))
    invalid = np.zeros(len(batch), bool)
    for column in columns.values():
        if not _is_valid(column):
            invalid |= _invalid_rows(column)
    read = columns
    if invalid.any():
        readable = pa.array(np.flatnonzero(~invalid))
        places = np.where(invalid, -1, np.cumsum(~invalid) - 1)
        back = pa.array(places, mask=invalid)
        read = {name: column.take(readable).take(back) for name, column in columns.items()}
    problems = pc.if_else(pa.array(invalid), "invalid_utf8", pa.scalar(None, pa.string()))
    return LandedRows(piece, read, problems, lambda positions: as_json(columns, positions))


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of values themselves, not of numbers of them; bytes are taken for text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type):
        column = column.cast(pa.binary())
        return pa.StringArray.from_buffers(
            len(column), *column.buffers()[1:], column.buffers()[0], offset=column.offset
        )
    return column


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _invalid_rows(column: pa.Array) -> np.ndarray:
    """Return which rows have texts that are not UTF-8, (R,) bool."""
    return np.array([not _is_valid(column.slice(n, 1)) for n in range(len(column))], bool)
