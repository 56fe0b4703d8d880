"""What every verb shares: its options, its configuration, and how it prints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from bahe_tasks.config import Config, ConfigError, load_config
from bahe_tasks.data_interval import InvalidDayError, parse_day
from bahe_tasks.doctor import check_home
from bahe_tasks.json_values import with_nulls

EXIT_FAILED, EXIT_WRONG_USE, EXIT_REFUSED = 1, 2, 3
DEFAULT_HOME = Path("bahe_home")

Home = Annotated[Path, typer.Option("--home", envvar="BAHE_HOME", help="Home folder, made by `bahe init`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
FirstDay = Annotated[str | None, typer.Option("--from", metavar="DAY", help="First day, YYYY-MM-DD.")]
LastDay = Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day, YYYY-MM-DD, included.")]

_A_SHARE = 10
"""Larger numbers are seconds or counts."""

log = Console(stderr=True)


class AnswerLostError(Exception):
    """Standard output, which the answer goes to, is full or was closed."""


def wants_traceback() -> bool:
    """Tell whether where an error came from is to be shown: BAHE_TRACEBACK=1."""
    return bool(os.environ.get("BAHE_TRACEBACK"))


def read_config(home: Path) -> Config:
    """Read the home folder's settings; BAHE_LANDING replaces the landing folder."""
    return load_config(home, landing_dir=os.environ.get("BAHE_LANDING"))


def writable_config(home: Path) -> Config:
    """Read the settings of a home folder that will be written to. Raises `ConfigError` where it cannot be."""
    config = read_config(home)
    if not (check := check_home(config.home)).ok:
        raise ConfigError(f"{check.sentence}; {check.command}")
    return config


def optional_days(first: str | None, last: str | None) -> tuple[date | None, date | None]:
    """Return the days of `--from` and `--to`, None for one that was not given."""
    start, end = (None if text is None else parse_day(text) for text in (first, last))
    if start and end:
        require_order(start, end)
    return start, end


def require_order(first: date, last: date) -> None:
    """Raise `InvalidDayError` where the first of two days is after the last."""
    if last < first:
        raise InvalidDayError(f"the first day, {first}, is after the last, {last}")


def show(document: Any, *, as_json: bool, table: RenderableType | None = None) -> None:
    """Print the document as JSON, or for a person the table, or the document's pairs."""
    if as_json:
        with answering():
            print(json.dumps(with_nulls(document), indent=2, default=str))
    elif table is not None:
        with answering():
            _out().print(table)
    else:
        for key, value in document.items():
            tell(f"{key}: {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return str(value)


def remark(line: str) -> None:
    """Print a line beside the answer, on stderr, as it is."""
    log.print(line, highlight=False, markup=False, soft_wrap=True)


def tell(line: str) -> None:
    """Print a line of the answer on stdout as it is."""
    with answering():
        _out().print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def answering() -> Iterator[None]:
    """Raise `AnswerLostError` where what is done in it cannot write to stdout."""
    try:
        yield
    except OSError as error:
        raise AnswerLostError(f"the answer cannot be written to standard output: {error.strerror}") from error


def _out() -> Console:
    """Return the console on stdout; wide enough for a table where it is no terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=180)


def cell(value: Any) -> str:
    """Return a table cell: numbers short (shares to four digits, seconds to one), absent values as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < _A_SHARE else f"{value:.1f}"
    return str(value)


def narrow_table(title: str) -> Table:
    """Return a table without columns, whose look leaves the room of a terminal of 80 columns to what stands in it."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)


def table_of(
    title: str, rows: list[dict[str, Any]], columns: list[str], *, headers: Mapping[str, str] | None = None
) -> Table:
    """Return a table of the rows' named columns; `headers` are of those whose name is too wide."""
    table = narrow_table(title)
    for column in columns:
        table.add_column(
            (headers or {}).get(column, column.replace("_", " ")),
            no_wrap=column == "day",
            justify="left" if column in ("day", "gate", "state") else "right",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    return table
