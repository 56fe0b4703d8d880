"""Rows of parquet files, in the types that each file has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.rows import LandedRows, as_json, escaped_texts, repeated_names, unescaped
from spark_jobs.landing_files import open_file

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1 << 17, 16 << 20


def read_parquet(piece: Piece) -> Iterator[LandedRows]:
    """Yield the rows of the piece's row groups. problem: invalid_utf8."""
    groups = list(range(piece.start, piece.end))
    with open_file(piece.file) as file:
        parquet = pq.ParquetFile(file)
        num_rows = max(sum(parquet.metadata.row_group(group).num_rows for group in groups), 1)
        at_once = min(_ROWS_AT_ONCE, 1 + num_rows * _BYTES_AT_ONCE // max(piece.num_bytes, 1))
        for batch in parquet.iter_batches(at_once, row_groups=groups, use_threads=False):
            yield _rows(piece, batch)


def _rows(piece: Piece, batch: pa.RecordBatch) -> LandedRows:
    columns: dict[str, pa.Array] = {}
    again: dict[str, pa.Array] = {}  # for the quarantine, which holds the whole row
    invalid = np.zeros(len(batch), bool)
    names = batch.schema.names
    for place, (name, column) in enumerate(zip(names, map(_plain, batch.columns), strict=True)):
        if name in columns:
            again[f"{name} ({names[: place + 1].count(name)})"] = column
            continue
        columns[name] = column
        if not _is_valid(column):
            texts = escaped_texts(column)
            invalid |= [text is not None and not _is_utf8(text) for text in texts]
            columns[name] = pa.array([text and unescaped(text) for text in texts], pa.string())
    read = columns
    if invalid.any():
        back = pa.array(np.cumsum(~invalid) - 1, mask=invalid)
        read = {name: column.filter(pa.array(~invalid)).take(back) for name, column in columns.items()}
    problems = pc.if_else(pa.array(invalid), "invalid_utf8", pa.scalar(None, pa.string()))
    repeated = repeated_names(names)
    return LandedRows(piece, read, problems, lambda positions: as_json(columns | again, positions), repeated)


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of values themselves, not of numbers of them; bytes are taken for text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    ):
        column = column.cast(pa.binary())
        return pa.StringArray.from_buffers(
            len(column), *column.buffers()[1:], column.buffers()[0], offset=column.offset
        )
    if not _has_views(kind):
        return column
    return pa.array(column.to_pylist(), _without_views(kind))  # Arrow 25 makes invalid lists of list views


def _has_views(kind: pa.DataType) -> bool:
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    is_view = is_view or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_view or any(_has_views(kind.field(place).type) for place in range(kind.num_fields))


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Return the type with whole values in place of views of them, which few of Arrow's functions know."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_views(kind.key_type), _without_views(kind.item_type))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind) or pa.types.is_list(kind):
        return pa.list_(_without_views(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_views(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_views(kind.value_type), kind.list_size)
    return kind


def _is_valid(column: pa.Array) -> bool:
    """Return whether all texts are UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
