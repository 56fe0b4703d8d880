"""A file of (user_id, item_id) pairs: read as the landing would read it, and written with what it had."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import write_table

from bahe_tasks.wrong_use import WrongUseError, check_place
from spark_jobs.landed.rows import written_out

_TEXTS = ("user_id", "item_id", "title")


class ScoreFileError(WrongUseError):
    """A file of pairs that cannot be read or written."""


class _Float(float):
    """A number of a json line: as text it is as it was written, 1.10 and not 1.1, which is what an id of it is."""

    def __new__(cls, text: str) -> _Float:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text


def read_pairs(path: Path) -> pd.DataFrame:
    """Return the pairs of a file, ids as texts. Raises `ScoreFileError`."""
    _check_ending(path)
    try:
        if path.suffix == ".csv":
            frame = _read_csv(path)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                rows = [_object_of(line, number) for number, line in enumerate(lines, 1) if line.strip()]
                frame = pd.DataFrame(rows, dtype=object)
        else:
            # Nullable types: an integer column with a gap would be read as floats, and 94110 as the category "94110.0".
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
            for column in (c for c in frame if str(c) in _TEXTS or str(c).startswith(("cat_", "num_"))):
                if pd.api.types.is_object_dtype(frame[column]):
                    frame[column] = frame[column].map(_decoded)
                elif pd.api.types.is_float_dtype(frame[column]) and not str(column).startswith("num_"):
                    frame[column] = frame[column].astype(object).map(_whole, na_action="ignore")
    except (OSError, ValueError) as error:
        raise ScoreFileError(f"{path} cannot be read: {error}") from error
    frame = frame.reset_index(drop=True)
    for column in ("user_id", "item_id"):
        if column not in frame:
            raise ScoreFileError(f"{path} has no column {column}; it has {', '.join(map(str, frame)) or 'none'}")
        if frame[column].isna().any() or (frame[column].map(str).str.strip() == "").any():
            raise ScoreFileError(f"{path}: every row needs its {column}")
        frame[column] = frame[column].map(as_landed)
    for column in frame.columns[frame.columns.astype(str).str.startswith("num_")]:
        given = frame[column].notna() & (frame[column] != "")
        numbers = pd.to_numeric(frame[column][given].map(str), errors="coerce").astype(float)
        wrong = numbers.index[~np.isfinite(numbers)]
        if len(wrong):
            raise ScoreFileError(f"{path}: {column} of row {wrong[0] + 1} is no number: {frame[column][wrong[0]]!r}")
    return frame


def as_landed(value: Any) -> str:
    """Return a value as the text that the landing makes of it: `true`, not `True`."""
    if type(value) is str:
        return value
    return written_out(bool(value) if isinstance(value, np.bool_) else value)


def check_out(out: Path) -> None:
    """Raise `WrongUseError` where pairs cannot be written to such a file."""
    _check_ending(out)
    check_place(out)
    if out.is_symlink():
        check_place(out.resolve())
    if out.exists() and not os.access(out, os.W_OK):  # a rename would not ask
        raise ScoreFileError(f"{out} cannot be written: it is read-only")


def check_columns(frame: pd.DataFrame, out: Path) -> None:
    """Raise `ScoreFileError` where the columns of pairs cannot be written to such a file."""
    if out.suffix != ".parquet":
        return
    try:
        table = pa.Table.from_pandas(frame)
        write_table(table.slice(0, 0), pa.BufferOutputStream())  # an object without fields is refused here only
    except (pa.ArrowException, OverflowError) as error:
        raise ScoreFileError(f"{out}: parquet cannot hold a column of the pairs ({error}); write jsonl") from error


def write_pairs(frame: pd.DataFrame, out: Path) -> None:
    """Write pairs in the format of the file's ending: `out` has them all, or is what it was.

    A file that is replaced hands its permissions on; a link stays one, and what it points to is replaced. What is no
    file, such as a pipe, is written to. A kill may leave a file `.NAME-half…` behind.
    """
    write, target = _WRITERS[out.suffix], out.resolve()
    if target.exists() and not target.is_file():
        write(frame, out)
        return
    half = target.with_name(f".{target.stem}-half-{os.getpid()}{out.suffix}")
    try:
        half.touch()
        if target.exists():
            shutil.copymode(target, half)  # before there is anything to read
        write(frame, half)
        with half.open("rb") as written:
            os.fsync(written.fileno())  # a name that survives a power cut must not stand for bytes that did not
        try:
            os.replace(half, target)
        except OSError as error:
            if error.errno != errno.EBUSY:  # a file that something is mounted on keeps its place
                raise
            shutil.copyfile(half, target)
    finally:
        half.unlink(missing_ok=True)


def _check_ending(path: Path) -> None:
    if path.suffix not in _WRITERS:
        raise ScoreFileError(f"{path}: the ending must be one of {', '.join(_WRITERS)}")


def _read_csv(path: Path) -> pd.DataFrame:
    """Return a csv file's columns as texts. Raises `ValueError`."""
    header = _checked_header(path)
    # A spreadsheet may end its lines in empty columns.
    twice = [name for n, name in enumerate(header) if name in header[:n] and name]
    if twice:
        raise ValueError(f"it has the column {twice[0]} twice")
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]).rename(columns=str.strip)


def _checked_header(path: Path) -> list[str]:
    """Return the names of a csv file's columns. Raises `ValueError` for a row of more or fewer values.

    pandas fills a short row up, and takes the first values of rows that are all too long for their numbers.
    """
    csv.field_size_limit(sys.maxsize)
    header: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows, line = csv.reader(lines), 1
        for row in rows:
            if len(row) > 1 or "".join(row).strip():  # no blank line
                header = header or [name.strip() for name in row]
                if len(row) != len(header):
                    raise ValueError(f"line {line} has {len(row)} values, the header {len(header)} names")
            line = rows.line_num + 1
    return header


def _decoded(value: Any) -> Any:
    """Return bytes as the text they are, as the landing takes them. Raises `ValueError`."""
    return value.decode() if isinstance(value, bytes) else value


def _object_of(line: str, number: int) -> dict[str, Any]:
    """Return a line's object. Raises `ValueError`."""
    try:
        row = json.loads(line, parse_float=_Float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no object")
    return _without_halves(row, number) if "\\u" in line else row


def _without_halves(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a row without halves of surrogate pairs, which no file can hold. Raises `ValueError` for one in an id, as the landing does."""
    found = {}
    for name, value in row.items():
        kept = value
        if isinstance(value, str):
            kept = value.encode("utf-8", "ignore").decode()
        elif isinstance(value, dict | list):
            kept = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "ignore"))
        if name in ("user_id", "item_id") and kept != value:
            raise ValueError(f"line {number}: half a surrogate pair in {name}")
        found[name.encode("utf-8", "replace").decode()] = kept
    return found


def _whole(value: float) -> str:
    """Return a number as the landing writes ids of it: a whole one as such."""
    return str(int(value)) if value.is_integer() else str(value)


def _write_jsonl(frame: pd.DataFrame, out: Path) -> None:
    # Times as the contract writes them: pandas's milliseconds would be read as seconds.
    frame.to_json(
        out, orient="records", lines=True, force_ascii=False, double_precision=15, date_format="iso", date_unit="us"
    )


def _write_csv(frame: pd.DataFrame, out: Path) -> None:
    frame.to_csv(out, index=False)


def _write_parquet(frame: pd.DataFrame, out: Path) -> None:
    frame.to_parquet(out, index=False)


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
