"""Rows of json lines files, each an object of fields."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.rows import LandedRows, written_out
from spark_jobs.landing_files import open_file

_BYTE_ORDER_MARK = "\ufeff"
_LINES_AT_ONCE = 1 << 16
_VALUES_AT_ONCE = 1 << 24
_LONGEST_LOOK = 1 << 20
_MOST_DIGITS = 4000
"""Python makes no number of more."""
_SURROGATE = re.compile(rb"\\u[dD]")
_IDS = {
    "behavior_events": ("user_id", "feature", "item_id"),
    "items": ("item_id",),
    "impressions": ("impression_id", "user_id", "item_id"),
}
_loads = functools.partial(json.loads, parse_int=str, parse_float=str, parse_constant=str)


def read_json_lines(piece: Piece) -> Iterator[LandedRows]:
    """Yield the rows of the lines that begin in the piece. Blank lines are not rows; the last of a repeated field counts.

    problem: invalid_utf8, of an id with half a surrogate pair too: without it, it would be another id; or malformed_json for a
    line that is not one whole json object.
    """
    lines = [line for line in _lines(piece) if line.removeprefix(_BYTE_ORDER_MARK.encode()).strip()]
    for start in range(0, len(lines), _LINES_AT_ONCE):
        part = lines[start : start + _LINES_AT_ONCE]
        yield from _rows(piece, part, [_fields(line, _IDS[piece.source]) for line in part])


def _rows(piece: Piece, lines: list[bytes], read: list[tuple[dict[str, Any], str | None]]) -> Iterator[LandedRows]:
    """Yield the rows of lines, fewer at a time where there are many names of fields."""
    fields, problems = zip(*read, strict=True)
    names = dict.fromkeys(name for row in fields for name in row)
    if len(names) * len(lines) > _VALUES_AT_ONCE and len(lines) > 1:
        half = len(lines) // 2
        yield from _rows(piece, lines[:half], read[:half])
        yield from _rows(piece, lines[half:], read[half:])
        return
    yield LandedRows(
        piece,
        {name: _texts([row.get(name) for row in fields]) for name in names},
        pa.array(problems, pa.string()),
        lambda positions: [_decoded(lines[n]) for n in positions.tolist()],
    )


def _fields(line: bytes, ids: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Return the fields of a line as texts, or why it has none. `ids`: those among them."""
    try:
        text = line.decode().lstrip(_BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        return {}, "invalid_utf8"
    try:
        found = _loads(text)
        if type(found) is not dict:
            return {}, "malformed_json"
        if any(value is not None and type(value) is not str for value in found.values()):
            whole = json.loads(text, parse_int=_number)  # numbers inside lists are numbers again, `true` is a text
            found = {
                name: of if of is None or type(of) is str else written_out(whole[name]) for name, of in found.items()
            }
    except (ValueError, RecursionError):
        return {}, "malformed_json"
    if not all(map(str.isascii, found)):
        found = {name.encode("utf-8", "replace").decode(): value for name, value in found.items()}
    if _SURROGATE.search(line) and any(found.get(name) != _paired(found.get(name)) for name in ids):
        return {}, "invalid_utf8"
    return found, None


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) < _MOST_DIGITS else digits


def _paired(text: str | None) -> str | None:
    """Return a text without half surrogate pairs, which json can write, as `canonical_text` has it."""
    return text and text.encode("utf-8", "ignore").decode()


def _texts(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([_paired(value) for value in values], pa.string())


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
