"""The few sums that are of all of a log: its base rate, the moments of each text feature, and how its newest labels went.

They are made in the driver, which holds the labels and values that count, some two hundred bytes each: one key for all of a log
would be one bucket for all of a day. Those read as of the start of a day are exact (`math.fsum`), so that they do not depend
on the order of rows. The newest labels are read as of the second in which an impression was shown: there are no more than
86,400 of those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US, statistics_of
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    BASE_PRIOR,
    MAX_VALUE_SCORE,
    MIN_RATE,
    MIN_VALUE_VARIANCE,
    state_key,
    state_width,
)
from bahe_tasks.stored_sums import OtherSumsError
from spark_jobs.arrow_columns import floats, numbered
from spark_jobs.derived.scope_sums import STATE, KeyedRows, scope_sums, state_rows

_ALL = state_key("all")
_LOG = state_key("log")
_SECOND_US = 1_000_000
_SECONDS = DAY_US // _SECOND_US
SCALAR_SCOPES = ("all", "feature", "log")
SCALAR_COLUMNS = ("seen_us", "fact_us", "label", "feature", "value")


@dataclass(frozen=True)
class DayScalars:
    """What one day reads of them, and their state at its end."""

    base_rate: float
    moments: dict[str, tuple[float, float]]
    """Text feature → mean and deviation of its values; without one that has no deviation."""
    log_sums: np.ndarray
    """(86400, state_width("log")) float64, as of the start of each second of the day; NaN where nothing was shown in it."""
    state: pa.Table
    """STATE."""

    def log_sums_at(self, seen_us: np.ndarray) -> np.ndarray:
        """Return the log's sums before the seconds in which impressions were shown, (R, state_width("log"))."""
        return self.log_sums[seen_us // _SECOND_US]

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
    if _ALL in known and _LOG not in known:
        raise OtherSumsError("none of the log's newest labels")
    facts, clicks = _faded(known.get(_ALL), day)
    base_rate = (clicks + BASE_PRIOR[0]) / (facts + BASE_PRIOR[1])
    found = _facts_of(counted)
    added_facts, added_clicks = found.added
    fade = 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
    rows = [("all", _ALL, day, [(facts + added_facts) * fade, (clicks + added_clicks) * fade])]
    moments: dict[str, tuple[float, float]] = {}
    for feature, (early, all_of_them) in sorted(found.values.items()):
        key = state_key("feature", feature)
        before = known[key]["sums"] if key in known else [0.0] * 3
        of_feature = _moments(*(old + new for old, new in zip(before, early, strict=True)))
        if of_feature is not None:
            moments[feature] = of_feature
        rows.append(("feature", key, day, [old + new for old, new in zip(before, all_of_them, strict=True)]))
    log = scope_sums("log", _of_log(found), state.filter(pc.field("scope") == "log"), day=day)
    log_sums = np.full((_SECONDS, state_width("log")), np.nan)
    log_sums[found.seconds] = log.answers[:, : state_width("log")]
    of_scalars = pa.Table.from_pylist(
        [dict(zip(("scope", "key", "updated", "sums"), row, strict=True)) for row in rows], schema=STATE
    )
    return DayScalars(
        base_rate=min(max(base_rate, MIN_RATE), 1 - MIN_RATE),
        moments=moments,
        log_sums=log_sums,
        state=pa.concat_tables([of_scalars, state_rows("log", log, day=day)]),
    )


class _Facts(NamedTuple):
    """What counts, as far as scalars are made of it."""

    added: tuple[float, float]  # to impressions and clicks of the base rate
    values: dict[str, tuple[list[float], list[float]]]
    """Text feature → number, sum and sum of squares of values before the day, and of all."""
    label_us: np.ndarray  # (F,) int64, when each label counts
    labels: np.ndarray  # (F,) float64
    seconds: np.ndarray  # (S,) int64, distinct and in order, in which impressions of the day were shown


def _of_log(found: _Facts) -> KeyedRows:
    """Return labels as facts of one key, a question at the start of each second, and a row that is neither: the key of a
    day without labels and impressions."""
    facts, asked = len(found.labels), len(found.seconds)
    kind = np.repeat([0, 1, 2], [facts, asked, 1])
    added = statistics_of("log", {"label": found.labels, "score": np.full(facts, np.nan)}, 0.5)
    time_us = np.concatenate([found.label_us, found.seconds * _SECOND_US, [0]])
    return KeyedRows(
        key=np.full(len(kind), _LOG),
        fact_us=time_us,
        is_fact=kind == 0,
        seen_us=time_us,
        is_seen=np.zeros(len(kind), bool),
        is_asked=kind == 1,
        statistics=np.concatenate([added, np.zeros((asked + 1, added.shape[1]))]),
    )


def _facts_of(counted: Iterable[pa.Table]) -> _Facts:
    weights, clicks = [np.zeros(0)], [np.zeros(0)]
    label_us, labels = [np.zeros(0, np.int64)], [np.zeros(0)]
    is_shown = np.zeros(_SECONDS, bool)
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for rows in counted:
        seconds = np.asarray(pc.fill_null(rows["seen_us"], -1), np.int64) // _SECOND_US
        is_shown[seconds[seconds >= 0]] = True  # those of earlier days ask for nothing
        facts = rows.select(list(SCALAR_COLUMNS)).filter(pc.field("fact_us").is_valid())
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
    return _Facts(
        added=(_exact(np.concatenate(weights)), _exact(np.concatenate(clicks))),
        values={name: _sums_of_values(parts) for name, parts in values.items()},
        label_us=np.concatenate(label_us),
        labels=np.concatenate(labels),
        seconds=np.flatnonzero(is_shown),
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
