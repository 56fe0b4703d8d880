"""What `bahe metrics` shows of the progressive predictions: per day, average over days, pooled, and by segment.

Reads only. The model of a day saw neither the day nor any label of it (docs/metrics.md).
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

from bahe_tasks.config import Config
from bahe_tasks.core.intervals import average_intervals, metric_intervals
from bahe_tasks.core.metrics import METRICS
from bahe_tasks.core.resampling import Interval
from bahe_tasks.stages.prediction_metrics import JudgedRows, judged_rows
from bahe_tasks.stages.segments import UNKNOWN, segments_of, value_names
from bahe_tasks.stores.delta_tables import read_table

_LEVEL = 0.95


def read_metrics(
    config: Config,
    *,
    first: date | None = None,
    last: date | None = None,
    intervals: bool = False,
    segments: bool = False,
) -> dict[str, Any]:
    """Return {"days": [...], "average": {...}, "pooled": {...}} from `first` to `last`, both included.

    With `intervals` every record has "intervals" and the document "bootstrap", which says what they are; with `segments`
    there is "segments", pooled over the days. A metric that does not exist is NaN or None.
    """
    predictions = read_table(
        config.tables_dir,
        "progressive_predictions",
        partitions=f"dt >= '{first or date.min}' AND dt <= '{last or date.max}'",
    ).sort_by([("dt", "ascending"), ("impression_id", "ascending")])
    rows, dt = judged_rows(predictions), np.asarray(predictions["dt"], dtype="datetime64[D]")
    versions = np.asarray(predictions["model_version"])
    samples = config.gate.bootstrap_samples if intervals else 0
    seed = config.training.seed
    starts = np.unique(dt, return_index=True)
    days = [
        {"day": str(day), **_record(rows.where(dt == day), samples, seed), "model_version": int(versions[start])}
        for day, start in zip(*starts, strict=True)
    ]
    document = {
        "days": days,
        "average": _average(days, rows, dt, samples, seed),
        "pooled": _record(rows, samples, seed),
    }
    if segments:
        document["segments"] = _segments(rows, segments_of(predictions, config), samples, seed)
    if intervals:
        document["bootstrap"] = {"level": _LEVEL, "samples": samples, "seed": seed, "drawn": "users"}
    return document


def predicted_days(config: Config) -> list[date]:
    """Return the days that have progressive predictions, in order."""
    return sorted(read_table(config.tables_dir, "progressive_predictions", columns=["dt"])["dt"].unique().to_pylist())


def _record(rows: JudgedRows, samples: int, seed: int) -> dict[str, Any]:
    """Return rows, metrics and, with samples, their intervals."""
    found = rows.metrics() if len(rows) else dict.fromkeys(METRICS)
    record: dict[str, Any] = {"rows": len(rows), **found}
    if samples:
        drawn = metric_intervals(rows.labels, rows.scores, rows.users, samples=samples, seed=seed, level=_LEVEL)
        record["intervals"] = _ends(drawn)
    return record


def _average(days: list[dict[str, Any]], rows: JudgedRows, dt: np.ndarray, samples: int, seed: int) -> dict[str, Any]:
    """Return the mean of each metric over the days on which it is a number, one vote a day, and how many they are."""
    finite = {name: [day[name] for day in days if np.isfinite(day[name])] for name in METRICS}
    record: dict[str, Any] = {
        "days": len(days),
        **{name: float(np.mean(values)) if values else None for name, values in finite.items()},
        "days_with": {name: len(values) for name, values in finite.items()},
    }
    if samples:
        drawn = average_intervals(rows.labels, rows.scores, rows.users, dt, samples=samples, seed=seed, level=_LEVEL)
        record["intervals"] = _ends(drawn)
    return record


def _segments(rows: JudgedRows, values: dict[str, np.ndarray], samples: int, seed: int) -> list[dict[str, Any]]:
    """Return one record for each value of each segment that has rows."""
    records = []
    for segment, of_row in values.items():
        for value in (*value_names(segment), UNKNOWN):
            mine = rows.where(of_row == value)
            if len(mine):
                named = {"segment": segment, "value": value, "positives": int(mine.labels.sum())}
                records.append(named | _record(mine, samples, seed))
    return records


def _ends(intervals: dict[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: {"low": interval.low, "high": interval.high} for name, interval in intervals.items()}
