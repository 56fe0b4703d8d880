"""The sums of all scopes side by side in one set of columns, and how an array `sums` of the state is laid out in them.

Users have every statistic and every half-life; the other scopes have some of them.
"""

from __future__ import annotations

import math

from pyspark.sql import Column
from pyspark.sql import functions as F

from bahe_tasks.running_sums import HALF_LIVES_DAYS, STATISTICS
from spark_jobs.counted_rows import DAY_US

SUM_COLUMNS: tuple[tuple[str, float], ...] = tuple(
    (statistic, half_life) for statistic in STATISTICS["user"] for half_life in HALF_LIVES_DAYS["user"]
)
"""(statistic, half-life in days) of each column."""


def sum_column(statistic: str, half_life: float) -> str:
    """Return the name of a column of SUM_COLUMNS."""
    return f"{statistic}_{half_life:g}d"


def columns_of(scope: str) -> list[tuple[str, float]]:
    """Return the columns that a scope has, in the order of its array `sums`."""
    return [(statistic, half_life) for statistic in STATISTICS[scope] for half_life in HALF_LIVES_DAYS[scope]]


def spread(sums: Column, scope: Column) -> dict[str, Column]:
    """Return an array `sums` of the state as columns; null where its scope does not have one."""
    found = {}
    for column in SUM_COLUMNS:
        value = F.lit(None).cast("double")
        for name in STATISTICS:
            if column in columns_of(name):
                value = F.when(scope == name, F.get(sums, F.lit(columns_of(name).index(column)))).otherwise(value)
        found[sum_column(*column)] = value
    return found


def gathered(scope: str) -> Column:
    """Return the columns of a scope as its array `sums`; what is null is 0."""
    return F.array(*[F.coalesce(sum_column(*column), F.lit(0.0)) for column in columns_of(scope)])


def growth(elapsed_us: Column, half_life: float) -> Column:
    """Return 2^(elapsed / half-life): what a fact weighs more than one that is so much older."""
    if math.isinf(half_life):
        return F.lit(1.0)
    return F.pow(F.lit(2.0), elapsed_us / F.lit(half_life * DAY_US))
