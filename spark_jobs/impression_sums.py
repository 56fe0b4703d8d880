"""From the sums of each key of an impression to its array `sums`: IMPRESSION_SUMS, in that order.

The part of titles is what `core.point_in_time.token_means` gives; tests hold the two equal.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from bahe_tasks.running_sums import HALF_LIVES_DAYS, PRIOR_LOG_ODDS_VARIANCE, PRIOR_VALUES
from spark_jobs.sum_columns import gathered, sum_column

_TITLE_SCOPES = ("token", "pair")


def impression_sums(answers: DataFrame, *, base_rate: float) -> DataFrame:
    """Return (impression_id, sums array<double>) from a row an impression and key: its sums when it was shown.

    `answers`: scope, impression_id, time_us, first_us and last_us (null: not shown before) and the sum columns.
    """
    of_key = answers.select(
        "impression_id",
        "scope",
        *[_of_key(scope).alias(scope) for scope in ("user", "item")],
        *[column.alias(name) for name, column in _of_token(base_rate).items()],
    )
    grouped = of_key.groupBy("impression_id").agg(
        *[F.max(scope).alias(scope) for scope in ("user", "item")],
        *[total.alias(f"{scope}_{name}") for scope in _TITLE_SCOPES for name, total in _of_title(scope).items()],
    )
    of_titles = [f"{scope}_{name}" for scope in _TITLE_SCOPES for name in _of_title(scope)]
    sums = F.concat(F.array(F.lit(base_rate)), F.col("user"), F.col("item"), F.array(*of_titles))
    return grouped.select("impression_id", sums.alias("sums"))


def _of_key(scope: str) -> Column:
    """Return the sums and times of a row of the scope; null for other rows."""
    return F.when(F.col("scope") == scope, F.concat(gathered(scope), F.array(_seconds_since("last_us"), _seconds_since("first_us"))))


def _seconds_since(column: str) -> Column:
    return (F.col("time_us") - F.col(column)) / F.lit(1e6)


def _of_token(base_rate: float) -> dict[str, Column]:
    """Return what a mean is taken of, for a row of scope token or pair."""
    columns = {}
    variance = base_rate * (1 - base_rate)
    half_lives = HALF_LIVES_DAYS["token"]
    prior_facts, prior_values = (_by_scope(of) for of in (PRIOR_LOG_ODDS_VARIANCE, PRIOR_VALUES))
    for half_life in half_lives:
        label_n, label_e, value_n, value_e = (
            F.coalesce(sum_column(name, half_life), F.lit(0.0)) for name in ("label_n", "label_e", "value_n", "value_e")
        )
        columns[f"label_{half_life:g}d"] = label_e / (label_n * variance + 1 / prior_facts)
        columns[f"value_{half_life:g}d"] = value_e / (value_n + prior_values)
    columns["log_n"] = F.log1p(F.coalesce(sum_column("label_n", half_lives[0]), F.lit(0.0)))
    columns["log_gap"] = F.log1p(_seconds_since("last_us"))
    columns["log_age"] = F.log1p(_seconds_since("first_us"))
    return columns


def _of_title(scope: str) -> dict[str, Column]:
    """Return means and extremes over the rows of a scope, in the order of IMPRESSION_SUMS."""
    half_lives = [f"{half_life:g}d" for half_life in HALF_LIVES_DAYS[scope]]

    def own(name: str) -> Column:
        return F.when(F.col("scope") == scope, F.col(name))

    means = {f"{kind}_{half_life}": F.avg(own(f"{kind}_{half_life}")) for kind in ("label", "value") for half_life in half_lives}
    extremes = {
        f"{kind}_{name}": take(own(f"{kind}_{half_lives[0]}"))
        for kind in ("label", "value")
        for name, take in (("max", F.max), ("min", F.min))
    }
    return means | extremes | {name: F.avg(own(name)) for name in ("log_n", "log_gap", "log_age")}


def _by_scope(of: dict[str, float]) -> Column:
    return F.when(F.col("scope") == "pair", F.lit(of["pair"])).otherwise(F.lit(of["token"]))
