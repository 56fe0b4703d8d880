"""The verb metrics: the quality of the predictions made before each day was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
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
    narrow_table,
    optional_days,
    read_config,
    remark,
    show,
)
from bahe_tasks.report.interval_text import interval_text

_METRIC_HEADERS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "mean_user_auc": "user AUC",
    "logloss": "logloss",
    "normalised_entropy": "NE",
    "calibration": "calib.",
    "expected_calibration_error": "ECE",
}
_LEGEND = "user AUC: mean over users; NE: normalised entropy; calib.: predicted / observed clicks; ECE: expected calibration error"

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
    from bahe_tasks.stages.read_metrics import predicted_days, read_metrics

    config, (start, end) = read_config(home), optional_days(first, last)
    document = read_metrics(config, first=start, last=end, intervals=intervals, segments=segments)
    tables = [_days_table(document), *_segment_tables(document)]
    show(document, as_json=as_json, table=Group(*tables, _legend(document)))
    for line in _absent(document["pooled"]):
        remark(line)
    if not document["days"]:
        remark(_nothing(predicted_days(config)))


def _absent(pooled: dict[str, Any]) -> Iterator[str]:
    """Say what cannot be told even of all rows."""
    absent = [name for name in _METRIC_HEADERS if pooled[name] is None or not math.isfinite(pooled[name])]
    if pooled["rows"] and absent:
        yield f"warning: over all rows there is no {', '.join(absent)} (docs/metrics.md says when each exists)"
    ends = pooled.get("intervals", {}).values()
    if pooled["rows"] and ends and all(math.isnan(of["low"]) for of in ends):
        yield "warning: there is no interval: users are drawn, and all rows are of one"


def _nothing(days: list[date]) -> str:
    """Say why there is not one row; `days` are those that have some."""
    if not days:
        return "no day has progressive predictions yet: the first that has a model before it makes some"
    return f"none of the days asked for has progressive predictions; days that have are {days[0]} to {days[-1]}"


def _days_table(document: dict[str, Any]) -> Table:
    table = _table("Progressive validation", "day", "rows", last="model")
    for day in document["days"]:
        table.add_row(day["day"], cell(day["rows"]), *_metric_cells(day), cell(day["model_version"]))
    table.add_section()
    table.add_row("average", "–", *_metric_cells(document["average"]), "–")
    table.add_row("pooled", cell(document["pooled"]["rows"]), *_metric_cells(document["pooled"]), "–")
    return table


def _segment_tables(document: dict[str, Any]) -> list[Table]:
    tables: dict[str, Table] = {}
    for record in document.get("segments", []):
        title = f"By {record['segment'].replace('_', ' ')}, pooled over the days"
        table = tables.setdefault(title, _table(title, "value", "rows", "clicks"))
        table.add_row(record["value"], cell(record["rows"]), cell(record["positives"]), *_metric_cells(record))
    return list(tables.values())


def _table(title: str, first: str, *others: str, last: str | None = None) -> Table:
    """Return an empty table of these columns and the metrics, narrow enough for a terminal of 80 columns."""
    table = narrow_table(title)
    table.add_column(first, no_wrap=True)
    for header in (*others, *_METRIC_HEADERS.values(), *([last] if last else [])):
        table.add_column(header, justify="right", overflow="fold")
    return table


def _metric_cells(record: dict[str, Any]) -> list[str]:
    """Return the record's metrics, each with its interval under it where it has one."""
    below = {name: interval_text(ends) for name, ends in record.get("intervals", {}).items()}
    return [f"{cell(record[name])}\n{below.get(name, '')}".rstrip() for name in _METRIC_HEADERS]


def _legend(document: dict[str, Any]) -> str:
    if "bootstrap" not in document:
        return _LEGEND
    drawn = document["bootstrap"]
    share = f"{100 * drawn['level']:g}"
    return (
        f"{_LEGEND}\nUnder a number: its {share} % bootstrap interval, {drawn['samples']} resamples of {drawn['drawn']}"
    )
