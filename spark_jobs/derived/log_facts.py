"""What counts of all of a log on one day, as far as sums over the whole log are made of it.

It is gathered in the driver, which holds the labels and values that count, two hundred bytes each at the peak: one key for all of a log
would be one bucket for all of a day.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import NumbersConfig
from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import BASE_HALF_LIFE_DAYS, LOG_STEP_US
from spark_jobs.arrow_columns import floats, numbered
from spark_jobs.derived.scope_sums import asked_from

_COLUMNS = ("fact_us", "label", "feature", "value")


class LogFacts(NamedTuple):
    """Times are since the start of the day."""

    added: tuple[float, float]  # to impressions and clicks of the base rate
    values: dict[str, tuple[list[float], list[float]]]
    """Text feature → number, sum and sum of squares of values before the day, and of all."""
    label_us: np.ndarray  # (F,) int64, when each label counts
    labels: np.ndarray  # (F,) float64
    steps: np.ndarray  # (S,) int64, those of LOG_STEP_US in which impressions of the day ask, in order


def log_facts(counted: Iterable[pa.Table], numbers: NumbersConfig) -> LogFacts:
    """Return what counts. `counted`: `counted_rows.COUNTED`, of which texts are not read. Sums are exact, whatever the order of rows."""
    weights, clicks = [np.zeros(0)], [np.zeros(0)]
    label_us, labels = [np.zeros(0, np.int64)], [np.zeros(0)]
    asks = np.zeros(DAY_US // LOG_STEP_US, bool)
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for rows in counted:
        shown_us = np.asarray(pc.fill_null(rows["seen_us"], -1), np.int64)
        asking = asked_from(shown_us[shown_us >= 0], numbers)  # those of earlier days ask for nothing
        asks[asking // LOG_STEP_US] = True
        facts = rows.select(list(_COLUMNS)).filter(pc.field("fact_us").is_valid())
        of_labels = facts.filter(pc.field("feature").is_null())
        label_us.append(np.asarray(of_labels["fact_us"], np.int64))
        labels.append(floats(of_labels["label"]))
        weights.append(0.5 ** (np.floor_divide(DAY_US - 1 - label_us[-1], DAY_US) / BASE_HALF_LIFE_DAYS))
        clicks.append(weights[-1] * labels[-1])
        feature, names = numbered(facts["feature"])
        is_early, value = np.asarray(facts["fact_us"], np.int64) < 0, floats(facts["value"])
        for number, name in enumerate(names):
            of_feature = feature == number
            values.setdefault(name, []).append((value[of_feature], is_early[of_feature]))
    return LogFacts(
        added=(_exact(np.concatenate(weights)), _exact(np.concatenate(clicks))),
        values={name: _sums_of_values(parts) for name, parts in values.items()},
        label_us=np.concatenate(label_us),
        labels=np.concatenate(labels),
        steps=np.flatnonzero(asks),
    )


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
