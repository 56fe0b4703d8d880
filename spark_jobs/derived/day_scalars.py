"""The few sums that are read as of the start of a day only: the log's base rate, and the moments of each text feature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    KEY_OF_ALL,
    MAX_VALUE_SCORE,
    MIN_VALUE_VARIANCE,
    state_key,
)
from bahe_tasks.stored_sums import OtherSumsError
from spark_jobs.arrow_columns import floats, numbered
from spark_jobs.derived.log_facts import LogFacts
from spark_jobs.derived.scope_sums import STATE


@dataclass(frozen=True)
class DayScalars:
    """What one day reads of them, and their state at its end."""

    base: BaseRate
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


def day_scalars(found: LogFacts, state: pa.Table, *, day: date) -> DayScalars:
    """Return the scalars of a day. `found`: what counts; `state`: the newest row of each key of all of a log.

    Raises `OtherSumsError`.
    """
    known = {row["key"]: row for row in state.to_pylist()}
    if known and KEY_OF_ALL not in known:
        raise OtherSumsError("other numbers of users, items and words")
    facts, clicks = _faded(known.get(KEY_OF_ALL), day)
    added_facts, added_clicks = found.added
    fade = 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
    rows = [("all", KEY_OF_ALL, day, [(facts + added_facts) * fade, (clicks + added_clicks) * fade])]
    moments: dict[str, tuple[float, float]] = {}
    for feature, (early, all_of_them) in sorted(found.values.items()):
        key = state_key("feature", feature)
        before = known[key]["sums"] if key in known else [0.0] * 3
        of_feature = _moments(*(old + new for old, new in zip(before, early, strict=True)))
        if of_feature is not None:
            moments[feature] = of_feature
        rows.append(("feature", key, day, [old + new for old, new in zip(before, all_of_them, strict=True)]))
    return DayScalars(
        base=BaseRate.before(clicks, facts, found.label_us, found.labels),
        moments=moments,
        state=pa.Table.from_pylist(
            [dict(zip(("scope", "key", "updated", "sums"), row, strict=True)) for row in rows], schema=STATE
        ),
    )


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
