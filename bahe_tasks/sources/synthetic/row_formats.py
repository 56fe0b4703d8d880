"""The three file formats of the landing contract: the same rows as JSON lines, CSV or parquet.

Unusual: the last `torn` rows are written as half a line, as a crashed writer leaves them; parquet cannot hold half a
row, so there they lack their first column, an id. The number of rows is the same in every format.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bahe_tasks.sources.landing_files import json_lines
from bahe_tasks.sources.synthetic.day_log import Rows

FileFormat = Literal["jsonl", "csv", "parquet"]
_ARROW_TYPES = {"O": pa.string(), "i": pa.int64(), "f": pa.float64()}
FILE_FORMATS: tuple[str, ...] = get_args(FileFormat)


def file_bytes(rows: Rows, *, torn: int, file_format: FileFormat) -> bytes:
    """Return the content of a landing file that holds `rows`, the last `torn` of them torn."""
    if file_format == "parquet":
        return _parquet(rows, torn)
    columns = {name: _plain(column) for name, column in rows.items()}
    text = _json_text(columns) if file_format == "jsonl" else _csv_text(columns)
    if torn:
        lines = text.splitlines(keepends=True)
        text = b"".join(lines[:-torn]) + b"".join(line[: len(line) // 2] + b"\n" for line in lines[-torn:])
    return text


def _json_text(columns: dict[str, list[Any]]) -> bytes:
    names = tuple(columns)
    rows = zip(*columns.values(), strict=True)
    return json_lines({n: v for n, v in zip(names, row, strict=True) if v is not None} for row in rows)


def _csv_text(columns: dict[str, list[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode("utf-8")


def _parquet(rows: Rows, torn: int) -> bytes:
    columns = {name: pa.array(_plain(column), type=_ARROW_TYPES[column.dtype.kind]) for name, column in rows.items()}
    if torn:
        name = next(iter(rows))
        columns[name] = pa.array(rows[name][:-torn].tolist() + [None] * torn, type=pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _plain(column: np.ndarray) -> list[Any]:
    """Return the column as Python values, a missing number as None."""
    values = column.tolist()
    if column.dtype.kind == "f" and np.isnan(column).any():
        return [None if value != value else value for value in values]
    return values
