"""The verb metrics: the quality of the predictions made before each day was trained on."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from bahe_tasks.commands.console import (
    DEFAULT_HOME,
    AsJson,
    FirstDay,
    Home,
    LastDay,
    cell,
    optional_day,
    read_config,
    show,
)

_METRIC_HEADERS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "mean_user_auc": "user AUC",
    "logloss": "logloss",
    "normalised_entropy": "NE",
    "calibration": "calibration",
    "expected_calibration_error": "ECE",
}
_LEGEND = "user AUC: mean over users · NE: normalised entropy · calibration: predicted / observed clicks · ECE: expected calibration error"

Intervals = Annotated[
    bool, typer.Option("--intervals", help="Add bootstrap intervals (95 %, gate.bootstrap_samples resamples of users).")
]
Segments = Annotated[
    bool, typer.Option("--segments", help="Add new and known users, new and known items, history length.")
]


def metrics(
    home: Home = DEFAULT_HOME,
    first: FirstDay = None,
    last: LastDay = None,
    intervals: Intervals = False,
    segments: Segments = False,
    as_json: AsJson = False,
) -> None:
    """Show progressive metrics: each day scored by the model of the days before it; per day, averaged and pooled."""
    from bahe_tasks.stages.read_metrics import read_metrics

    document = read_metrics(
        read_config(home), first=optional_day(first), last=optional_day(last), intervals=intervals, segments=segments
    )
    tables = [_days_table(document), *([_segments_table(document)] if segments else [])]
    show(document, as_json=as_json, table=Group(*tables, _legend(document)))


def _days_table(document: dict[str, Any]) -> Table:
    table = Table(title="Progressive validation")
    table.add_column("day", no_wrap=True)
    for header in ("rows", *_METRIC_HEADERS.values(), "model"):
        table.add_column(header, justify="right")
    for day in document["days"]:
        table.add_row(day["day"], cell(day["rows"]), *_metric_cells(day), cell(day["model_version"]))
    table.add_section()
    table.add_row("average", "–", *_metric_cells(document["average"]), "–")
    table.add_row("pooled", cell(document["pooled"]["rows"]), *_metric_cells(document["pooled"]), "–")
    return table


def _segments_table(document: dict[str, Any]) -> Table:
    table = Table(title="By segment, pooled over the days")
    table.add_column("segment", no_wrap=True)
    for header in ("value", "rows", "clicks", *_METRIC_HEADERS.values()):
        table.add_column(header, justify="right")
    previous = None
    for record in document["segments"]:
        if record["segment"] != previous:
            table.add_section()
        name = record["segment"].replace("_", " ") if record["segment"] != previous else ""
        table.add_row(name, record["value"], cell(record["rows"]), cell(record["positives"]), *_metric_cells(record))
        previous = record["segment"]
    return table


def _metric_cells(record: dict[str, Any]) -> list[str]:
    """Return the record's metrics, each with its interval on a second line where it has one."""
    ends = record.get("intervals", {})
    return [cell(record[name]) + _second_line(**ends.get(name, {})) for name in _METRIC_HEADERS]


def _second_line(low: float = math.nan, high: float = math.nan) -> str:
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"\n{low:.3f}–{high:.3f}" if math.isfinite(high) else f"\n{low:.3f}–∞"


def _legend(document: dict[str, Any]) -> str:
    if "bootstrap" not in document:
        return _LEGEND
    drawn = document["bootstrap"]
    share = f"{100 * drawn['level']:g}"
    return f"{_LEGEND}\nSecond lines: {share} % bootstrap intervals, {drawn['samples']} resamples of {drawn['drawn']}"
