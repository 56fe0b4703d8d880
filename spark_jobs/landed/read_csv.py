"""Rows of csv files with a header line; quotes are doubled inside quotes, values may span lines.

Unusual: bytes that are not UTF-8 pass the reader as lone surrogates, so that they are seen in the row that has them.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa

from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.rows import LandedRows, repeated_names
from spark_jobs.landing_files import open_file

_END = "\0the end\0"  # a line no file has
_ROWS_AT_ONCE, _CHARACTERS_AT_ONCE = 1 << 16, 16 << 20


def read_csv(piece: Piece) -> Iterator[LandedRows]:
    """Yield the rows of a file. Empty lines are not rows.

    problem: invalid_utf8, or malformed_csv for a row with more or fewer values than the header has names, and for a line
    with a quote that nothing closes.
    """
    csv.field_size_limit(sys.maxsize)
    with open_file(piece.file) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = (row for row in _rows_in(lines) if row)
        header = [name.strip() for name in _mended(next((row for row in rows if any(map(str.strip, row))), []))]
        for part in _parts(rows):
            yield _rows(piece, header, part)


class _Unclosed(list[str]):
    """A line that has a quote which nothing closes, as it landed."""


def _rows_in(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the rows; from a quote on that nothing closes, each line is read by itself."""
    held: list[str] = []

    def counted() -> Iterator[str]:
        for line in chain(lines, [_END]):
            held.append(line)
            yield line

    for row in csv.reader(counted()):
        if row == [_END]:
            return
        if row and row[-1].endswith(_END):
            break
        held.clear()
        yield row
    for line in held[:-1]:
        first = next(csv.reader([line, _END]))
        yield _Unclosed([line.rstrip("\r\n")]) if first and first[-1].endswith(_END) else first


def _parts(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """Share the rows out among parts of a size that can be held."""
    part: list[list[str]] = []
    held = 0
    for row in rows:
        part.append(row)
        held += sum(map(len, row))
        if len(part) == _ROWS_AT_ONCE or held > _CHARACTERS_AT_ONCE:
            yield part
            part, held = [], 0
    if part:
        yield part


def _rows(piece: Piece, header: list[str], rows: list[list[str]]) -> LandedRows:
    problems: list[str | None] = [
        None if len(row) == len(header) and not isinstance(row, _Unclosed) else "malformed_csv" for row in rows
    ]
    for n, row in enumerate(rows):
        if not "".join(row).isascii() and _mended(row) != row:
            problems[n] = "invalid_utf8"
    columns = _columns(header, rows, problems)
    return LandedRows(
        piece,
        columns,
        pa.array(problems, pa.string()),
        lambda at: [_written(rows[n]) for n in at.tolist()],
        repeated_names(header),
    )


def _columns(header: list[str], rows: list[list[str]], problems: list[str | None]) -> dict[str, pa.Array]:
    nothing: list[str | None] = [None] * len(header)
    readable = [nothing if problem else row for row, problem in zip(rows, problems, strict=True)]
    columns = zip(header, zip(*readable, strict=True), strict=True)
    return {name: pa.array(column, pa.string()) for name, column in reversed(list(columns))}


def _mended(row: list[str]) -> list[str]:
    """Return the values with what is not UTF-8 replaced."""
    return [value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for value in row]


def _written(row: list[str]) -> str:
    text, mended = io.StringIO(), _mended(row)
    if isinstance(row, _Unclosed):
        return mended[0]
    csv.writer(text, lineterminator="\r\n").writerow(mended)
    return text.getvalue().removesuffix("\r\n")
