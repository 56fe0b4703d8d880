"""The few sums that are read as of the start of a day only: the log's base rate, and the moments of each text feature.

They are numbers on the driver, never windows: one key for all of a log would be one task for all of a day.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    BASE_PRIOR,
    MAX_VALUE_SCORE,
    MIN_RATE,
    MIN_VALUE_VARIANCE,
    state_key,
)

_ALL = state_key("all")
StateRow = tuple[str, int, date, list[float]]
"""scope, key, updated, sums."""


@dataclass(frozen=True)
class DayScalars:
    """What one day reads of them, and their state at its end."""

    base_rate: float
    moments: dict[str, tuple[float, float]]
    """Text feature → mean and deviation of its values; without one that has no deviation."""
    state: list[StateRow]

    def score(self, value: Column, feature: Column) -> Column:
        """Return a value in deviations from the mean of its feature, clipped; null where that is not known."""
        if not self.moments:
            return F.lit(None).cast("double")
        numbers = [
            F.lit(part) for name, (mean, deviation) in self.moments.items() for part in (name, [mean, deviation])
        ]
        of_feature = F.try_element_at(F.create_map(*numbers), feature)
        score = (value - of_feature[0]) / of_feature[1]
        clipped = F.greatest(F.least(score, F.lit(MAX_VALUE_SCORE)), F.lit(-MAX_VALUE_SCORE))
        return F.when(score.isNotNull(), clipped)  # least and greatest pass over null


def day_scalars(counted: DataFrame, before: DataFrame, *, day: date) -> DayScalars:
    """Return the scalars of a day. `counted`: its rows; `before`: the state of its keys before it."""
    return scalars_of(_collect(counted, before), day=day)


def scalars_of(found: Sequence[Any], *, day: date) -> DayScalars:
    """Return the scalars of a day from rows with key, feature, updated and sums.

    With a key they are the state of the scopes all and feature; with a feature what its facts add: number, sum and sum of
    squares of the values before the day, then of all; with neither what the labels add to the base rate.
    """
    known = {row["key"]: row for row in found if row["feature"] is None and row["key"] is not None}
    facts, clicks = _faded_base(known.get(_ALL), day)
    base_rate = (clicks + BASE_PRIOR[0]) / (facts + BASE_PRIOR[1])
    state: list[StateRow] = []
    moments = {}
    for row in found:
        if row["key"] is not None:
            continue
        if row["feature"] is None:  # the labels of the day
            facts, clicks = (total + new for total, new in zip((facts, clicks), row["sums"], strict=True))
            continue
        key = state_key("feature", row["feature"])
        earlier = known[key]["sums"] if key in known else [0.0] * 3
        at_start = [old + new for old, new in zip(earlier, row["sums"][:3], strict=True)]
        moments[row["feature"]] = _moments(*at_start)
        state.append(("feature", key, day, [old + new for old, new in zip(earlier, row["sums"][3:], strict=True)]))
    fade = 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
    state.append(("all", _ALL, day, [facts * fade, clicks * fade]))
    return DayScalars(
        base_rate=min(max(base_rate, MIN_RATE), 1 - MIN_RATE),
        moments={name: of for name, of in sorted(moments.items()) if of is not None},
        state=state,
    )


def _collect(counted: DataFrame, before: DataFrame) -> list[Any]:
    """Return, in one job, the state of the scopes all and feature, and what the rows of each feature and the labels add."""
    days_back = F.floor((F.lit(DAY_US - 1) - F.col("fact_us")) / DAY_US)
    weight = F.pow(F.lit(0.5), days_back / F.lit(BASE_HALF_LIFE_DAYS))
    at_start = F.when(F.col("fact_us") < 0, F.col("value"))
    value = F.col("value")
    moments = [F.count(at_start), F.sum(at_start), F.sum(at_start**2), F.count(value), F.sum(value), F.sum(value**2)]
    labels = [F.sum(weight), F.sum(weight * F.col("label"))]
    added = (
        counted.where("fact_us IS NOT NULL")
        .groupBy("feature")
        .agg(F.array(*_or_zero(moments)).alias("moments"), F.array(*_or_zero(labels)).alias("labels"))
        .select(
            F.lit(None).cast("bigint").alias("key"),
            "feature",
            F.lit(None).cast("date").alias("updated"),
            F.when(F.col("feature").isNull(), F.col("labels")).otherwise(F.col("moments")).alias("sums"),
        )
    )
    state = before.where("scope IN ('all', 'feature') AND updated IS NOT NULL").select(
        "key", F.lit(None).cast("string").alias("feature"), "updated", "sums"
    )
    return sorted(added.union(state).collect(), key=str)


def _or_zero(sums: list[Column]) -> list[Column]:
    return [F.coalesce(total.cast("double"), F.lit(0.0)) for total in sums]


def _faded_base(row: Any, day: date) -> tuple[float, float]:
    """Return the log's impressions and clicks as they count at the start of the day."""
    if row is None:
        return 0.0, 0.0
    fade = 0.5 ** (((day - row["updated"]).days - 1) / BASE_HALF_LIFE_DAYS)
    return row["sums"][0] * fade, row["sums"][1] * fade


def _moments(count: float, total: float, squares: float) -> tuple[float, float] | None:
    if not count:
        return None
    mean, mean_square = total / count, squares / count
    variance = mean_square - mean**2
    if not math.isfinite(variance) or variance <= MIN_VALUE_VARIANCE * mean_square:
        return None
    return mean, math.sqrt(variance)
