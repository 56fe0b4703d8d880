"""One HTML file that opens offline: the days, the progressive metrics, the gate's results, the versions."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader

from bahe_tasks.report.figures import auc_figure, common_look, rows_figure
from bahe_tasks.report.interval_text import interval_text


def write_report(
    target: Path,
    *,
    days: list[dict[str, Any]],
    metrics: dict[str, Any],
    gate_results: list[dict[str, Any]],
    versions: list[dict[str, Any]],
    champion: dict[str, Any] | None,
) -> None:
    """Write the report to `target` in one step, so that a reader never sees half of it.

    `days` and `metrics` are the documents of `bahe status` and `bahe metrics`, intervals and segments where it has them;
    `gate_results` the rows of that table; `versions` one dictionary per model version.
    """
    figures = [rows_figure(days)]
    if metrics["days"]:
        figures.insert(0, auc_figure(metrics["days"]))
    environment = Environment(loader=PackageLoader("bahe_tasks.report"), autoescape=True)
    environment.filters["cell"] = _cell
    environment.filters["interval"] = interval_text
    page = environment.get_template("report.html.jinja").render(
        days=days,
        metrics=metrics,
        gate_results=sorted(gate_results, key=lambda row: (str(row["dt"]), row["stage"], row["expectation"])),
        versions=versions,
        champion=champion,
        figures=[_html(figure, first=place == 0) for place, figure in enumerate(figures)],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, target)


def _html(figure: go.Figure, *, first: bool) -> str:
    """Return the figure as HTML; the first one carries the plotly program, so that the file needs no network."""
    common_look(figure)
    return figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})


def _cell(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
