"""The few sums that are read as of the start of a day only: the log's base rate, and the moments of each text feature.

They are made in the driver, which holds the labels and values that count, some ten bytes each: one key for all of a log
would be one bucket for all of a day. Their sums are exact (`math.fsum`), so that they do not depend on the order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    BASE_PRIOR,
    MAX_VALUE_SCORE,
    MIN_RATE,
    MIN_VALUE_VARIANCE,
    state_key,
)
from spark_jobs.arrow_columns import floats, numbered
from spark_jobs.derived.scope_sums import STATE

_ALL = state_key("all")
SCALAR_SCOPES = ("all", "feature")
SCALAR_COLUMNS = ("fact_us", "label", "feature", "value")


@dataclass(frozen=True)
class DayScalars:
    """What one day reads of them, and their state at its end."""

    base_rate: float
    moments: dict[str, tuple[float, float]]
    """Text feature → mean and deviation of its values; without one that has no deviation."""
    state: pa.Table
    """STATE."""

    def scores(self, rows: pa.Table) -> pa.Array:
        """Return each value in deviations from the mean of its feature, clipped; null where that is not known."""
        feature, features = numbered(rows["feature"])
        nothing = (np.nan, np.nan)
        moments = np.array([*(self.moments.get(name, nothing) for name in features), nothing])[feature]
        score = np.clip((floats(rows["value"]) - moments[:, 0]) / moments[:, 1], -MAX_VALUE_SCORE, MAX_VALUE_SCORE)
        return pa.array(score, mask=np.isnan(score))


def day_scalars(counted: Iterable[pa.Table], state: pa.Table, *, day: date) -> DayScalars:
    """Return the scalars of a day. `counted`: SCALAR_COLUMNS of what counts; `state`: the newest row of each of their keys."""
    known = {row["key"]: row for row in state.to_pylist()}
    facts, clicks = _faded(known.get(_ALL), day)
    base_rate = (clicks + BASE_PRIOR[0]) / (facts + BASE_PRIOR[1])
    labels, values = _facts_of(counted)
    added_facts, added_clicks = labels
    fade = 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
    rows = [("all", _ALL, day, [(facts + added_facts) * fade, (clicks + added_clicks) * fade])]
    moments: dict[str, tuple[float, float]] = {}
    for feature, (early, all_of_them) in sorted(values.items()):
        key = state_key("feature", feature)
        before = known[key]["sums"] if key in known else [0.0] * 3
        found = _moments(*(old + new for old, new in zip(before, early, strict=True)))
        if found is not None:
            moments[feature] = found
        rows.append(("feature", key, day, [old + new for old, new in zip(before, all_of_them, strict=True)]))
    return DayScalars(
        base_rate=min(max(base_rate, MIN_RATE), 1 - MIN_RATE),
        moments=moments,
        state=pa.Table.from_pylist(
            [dict(zip(("scope", "key", "updated", "sums"), row, strict=True)) for row in rows], schema=STATE
        ),
    )


def _facts_of(
    counted: Iterable[pa.Table],
) -> tuple[tuple[float, float], dict[str, tuple[list[float], list[float]]]]:
    """Return what labels add to the base rate, and of each feature number, sum and sum of squares before the day, and of all."""
    weights, clicks = [np.zeros(0)], [np.zeros(0)]
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for rows in counted:
        facts = rows.select(list(SCALAR_COLUMNS)).filter(pc.field("fact_us").is_valid())
        of_labels = facts.filter(pc.field("feature").is_null())
        days_back = np.floor_divide(DAY_US - 1 - np.asarray(of_labels["fact_us"], np.int64), DAY_US)
        weights.append(0.5 ** (days_back / BASE_HALF_LIFE_DAYS))
        clicks.append(weights[-1] * floats(of_labels["label"]))
        feature, names = numbered(facts["feature"])
        is_early, value = np.asarray(facts["fact_us"], np.int64) < 0, floats(facts["value"])
        for number, name in enumerate(names):
            of_feature = feature == number
            values.setdefault(name, []).append((value[of_feature], is_early[of_feature]))
    sums = (_exact(np.concatenate(weights)), _exact(np.concatenate(clicks)))
    return sums, {name: _sums_of_values(parts) for name, parts in values.items()}


def _sums_of_values(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[float], list[float]]:
    value, is_early = (np.concatenate(of) for of in zip(*parts, strict=True))
    is_known = ~np.isnan(value)
    early, known = (
        [float(len(some)), _exact(some), _exact(some**2)] for some in (value[is_known & is_early], value[is_known])
    )
    return early, known


def _exact(values: np.ndarray) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def _faded(row: Mapping[str, Any] | None, day: date) -> tuple[float, float]:
    """Return the log's impressions and clicks as they count at the start of the day."""
    if row is None:
        return 0.0, 0.0
    fade = 0.5 ** (((day - row["updated"]).days - 1) / BASE_HALF_LIFE_DAYS)
    return row["sums"][0] * fade, row["sums"][1] * fade


def _moments(count: float, total: float, squares: float) -> tuple[float, float] | None:
    if not count:
        return None
    mean, mean_square = total / count, squares / count
    variance = mean_square - mean * mean
    if not math.isfinite(variance) or variance <= MIN_VALUE_VARIANCE * mean_square:
        return None
    return mean, math.sqrt(variance)
