"""The sums of all scopes side by side in one set of columns, and how an array `sums` of the state is laid out in them.

Users have every statistic and every half-life; the other scopes have some of them.

Unusual: expressions are SQL text. There are hundreds, and each call that builds one of Python objects crosses into the JVM.
"""

from __future__ import annotations

import math

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


def spread(column: tuple[str, float]) -> str:
    """Return a column out of the array `sums` of the state; null where its scope does not have it."""
    places = {scope: columns_of(scope).index(column) for scope in STATISTICS if column in columns_of(scope)}
    cases = [f"WHEN '{scope}' THEN get(sums, {place})" for scope, place in places.items()]
    return f"CASE scope {' '.join(cases)} END"


def gathered(scope: str) -> str:
    """Return the columns of a scope as its array `sums`; what is null is 0."""
    return f"array({', '.join(or_zero(*column) for column in columns_of(scope))})"


def or_zero(statistic: str, half_life: float) -> str:
    """Return a column, 0 where it is null: nothing was counted."""
    return f"coalesce({sum_column(statistic, half_life)}, 0D)"


def growth(elapsed_us: str, half_life: float) -> str:
    """Return 2^(elapsed / half-life): what a fact weighs more than one that is so much older."""
    return "1D" if math.isinf(half_life) else f"pow(2D, ({elapsed_us}) / {half_life * DAY_US!r}D)"
