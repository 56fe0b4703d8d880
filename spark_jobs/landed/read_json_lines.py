"""Rows of json lines files, each an object of fields."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.rows import LandedRows, written_out
from spark_jobs.landing_files import open_file

_BYTE_ORDER_MARK = "\ufeff"
_LINES_AT_ONCE = 1 << 16
_LONGEST_LOOK = 1 << 20
_loads = functools.partial(json.loads, parse_int=str, parse_float=str, parse_constant=str)


def read_json_lines(piece: Piece) -> Iterator[LandedRows]:
    """Yield the rows of the lines that begin in the piece. Blank lines are not rows; the last of a repeated field counts.

    problem: invalid_utf8, or malformed_json for a line that is not one whole json object.
    """
    lines = [line for line in _lines(piece) if line.strip()]
    for start in range(0, len(lines), _LINES_AT_ONCE):
        yield _rows(piece, lines[start : start + _LINES_AT_ONCE])


def _rows(piece: Piece, lines: list[bytes]) -> LandedRows:
    fields, problems = [], []
    for line in lines:
        found, problem = _fields(line)
        fields.append(found)
        problems.append(problem)
    names = dict.fromkeys(name for row in fields for name in row)
    return LandedRows(
        piece,
        {name: _texts([row.get(name) for row in fields]) for name in names},
        pa.array(problems, pa.string()),
        lambda positions: [_decoded(lines[n]) for n in positions.tolist()],
    )


def _fields(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the fields of a line as texts, or why it has none."""
    try:
        text = line.decode().lstrip(_BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        return {}, "invalid_utf8"
    try:
        found = _loads(text)
    except (ValueError, RecursionError):
        return {}, "malformed_json"
    if type(found) is not dict:
        return {}, "malformed_json"
    for value in found.values():
        if value is not None and type(value) is not str:  # numbers inside lists are numbers again, `true` is a text
            whole = json.loads(text)
            return {
                name: of if of is None or type(of) is str else written_out(whole[name]) for name, of in found.items()
            }, None
    return found, None


def _texts(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # half of a surrogate pair, which json can write
        return pa.array([v if v is None else v.encode("utf-8", "replace").decode() for v in values], pa.string())


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").lstrip(_BYTE_ORDER_MARK)


def _lines(piece: Piece) -> list[bytes]:
    """Return the lines that begin in the piece; the one that runs over its end is read to its own."""
    with open_file(piece.file) as file:
        size = file.size()
        start = 0 if piece.start == 0 else _line_start(file, piece.start, size)
        end = size if piece.end >= size else _line_start(file, piece.end, size)
        file.seek(start)
        return bytes(file.read(max(end - start, 0))).splitlines()


def _line_start(file: pa.NativeFile, position: int, size: int) -> int:
    """Return where the first line begins that does not begin before `position`."""
    at = position - 1
    while at < size:
        file.seek(at)
        found = bytes(file.read(_LONGEST_LOOK))
        newline = found.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(found)
    return size
