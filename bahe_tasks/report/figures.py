"""The report's figures."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go


def auc_figure(days: list[dict[str, Any]]) -> go.Figure:
    """Progressive AUC and GAUC per day, the AUC with its interval where it has one; 0.5 is chance."""
    figure = go.Figure()
    dates = [day["day"] for day in days]
    ends = [day.get("intervals", {}).get("auc", {}) for day in days]
    above = [interval.get("high", day["auc"]) - day["auc"] for day, interval in zip(days, ends, strict=True)]
    below = [day["auc"] - interval.get("low", day["auc"]) for day, interval in zip(days, ends, strict=True)]
    whiskers = {"type": "data", "array": above, "arrayminus": below, "thickness": 1}
    for name, label, error in (("auc", "AUC", whiskers), ("gauc", "GAUC", None)):
        figure.add_scatter(x=dates, y=[day[name] for day in days], name=label, mode="lines+markers", error_y=error)
    figure.add_hline(y=0.5, line_dash="dot", annotation_text="chance")
    figure.update_layout(title="Progressive validation: each day scored before it was trained on", yaxis_title="AUC")
    return figure


def rows_figure(days: list[dict[str, Any]]) -> go.Figure:
    """Landed rows per day, by where they went, and the behaviors that had to be encoded."""
    figure = go.Figure()
    dates = [day["day"] for day in days]
    for name, label in (
        ("table_rows", "in the tables"),
        ("duplicate_rows", "duplicates"),
        ("quarantined_rows", "quarantined"),
    ):
        figure.add_bar(x=dates, y=[day[name] for day in days], name=label)
    figure.add_scatter(
        x=dates, y=[day["new_behaviors"] for day in days], name="new behaviors encoded", mode="lines+markers"
    )
    figure.update_layout(title="Landed rows and new behaviors", barmode="stack", yaxis_title="rows")
    return figure


def common_look(figure: go.Figure) -> None:
    """Give every figure the same look, with one tick per day."""
    figure.update_layout(template="plotly_white", height=360, margin={"l": 60, "r": 20, "t": 50, "b": 40})
    figure.update_xaxes(type="category")
