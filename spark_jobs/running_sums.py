"""Running sums of a day: those of each impression, and the state at its end (`bahe_tasks.running_sums`).

Unusual: one window over the facts of every key answers all questions. The state before the day enters it as a first
fact, the state after it leaves as the answer to a last question, and a fact of time t is scaled by 2^(t / half-life), so
that sums fade by one factor when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date
from typing import NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.running_sums import MIN_RATE, PRIOR_VALUES, STATISTICS, prior_facts, state_key
from bahe_tasks.schemas import TABLES
from spark_jobs.counted_rows import DAY_US, start_us
from spark_jobs.day_scalars import DayScalars, day_scalars
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days, read_delta
from spark_jobs.impression_sums import impression_sums
from spark_jobs.sum_columns import SUM_COLUMNS, columns_of, gathered, growth, spread, sum_column

_OPENING, _CLOSING = -(2**62), 2**62
_LONGEST = float("inf")
_BROADCAST_KEYS = 500_000  # of 16 bytes; a day with more is joined by shuffles


class DaySums(NamedTuple):
    """What a run computes: `of_impressions` (impression_id, sums) of those not late, and the day's rows of `state`."""

    of_impressions: DataFrame
    state: DataFrame


def running_sums(spark: SparkSession, plan: DedupPlan, rows: DataFrame) -> DaySums:
    """Return the sums of the day's impressions and the partition of the table running_sums. `rows`: `counted_rows`."""
    observed = Observation()
    counted = rows.observe(observed, F.sum(F.size("keys")).alias("keys")).localCheckpoint()
    day_is_small = (observed.get["keys"] or 0) <= _BROADCAST_KEYS
    small = F.broadcast if day_is_small else _as_it_is
    before = _state_before(spark, plan, counted, small).localCheckpoint()
    scalars = day_scalars(counted, before, day=plan.day)
    of_keys = before.where(F.col("scope").isin(*STATISTICS))
    in_time = (
        _openings(of_keys, plan.day)
        .unionByName(_facts(counted, of_keys, scalars, small), allowMissingColumns=True)
        .unionByName(_questions(counted), allowMissingColumns=True)
        .unionByName(_closings(of_keys), allowMissingColumns=True)
    )
    answers = _answers(in_time).localCheckpoint()
    asked = answers.where("impression_id IS NOT NULL")
    return DaySums(
        of_impressions=small(impression_sums(asked, base_rate=scalars.base_rate)),
        state=_state_after(spark, plan, answers.where("impression_id IS NULL"), scalars),
    )


def _state_before(
    spark: SparkSession,
    plan: DedupPlan,
    counted: DataFrame,
    small: Callable[[DataFrame], DataFrame],
) -> DataFrame:
    """Return each key that the day touches once, with its newest row of the state; null where it has none."""
    nobody = F.lit(None).cast("bigint").alias("owner")
    features = counted.where("feature_key IS NOT NULL").select(
        F.lit("feature").alias("scope"), F.col("feature_key").alias("key"), nobody
    )
    log = spark.range(1).select(F.lit("all").alias("scope"), F.lit(state_key("all")).alias("key"), nobody)
    touched = counted.select(F.inline("keys")).union(features).union(log)
    if not plan.state_days:
        nothing = spark.createDataFrame([], TABLES["running_sums"].ddl).drop("dt")
        return _newest(touched.unionByName(nothing, allowMissingColumns=True))
    state = _state_of(spark, plan, plan.state_days).drop("owner")
    of_touched = state.join(small(touched.select("scope", "key")), ["scope", "key"], "left_semi")
    return _newest(touched.unionByName(of_touched, allowMissingColumns=True))


def _newest(rows: DataFrame) -> DataFrame:
    """Return the newest row of each key, and its owner from whichever row has one."""
    row = F.struct("updated", "first_at", "last_at", "sums")
    newest = rows.groupBy("scope", "key").agg(
        F.max("owner").alias("owner"), F.max_by(row, F.col("updated")).alias("row")
    )
    return newest.select("scope", "key", "owner", "row.*")


def _openings(of_keys: DataFrame, day: date) -> DataFrame:
    """Return the state before the day as the first fact of each key."""
    elapsed = f"(date_diff(updated, DATE '{day}') + 1) * {DAY_US}L"
    return of_keys.where("updated IS NOT NULL").selectExpr(
        "scope",
        "key",
        f"{_OPENING} AS time_us",
        f"unix_micros(first_at) - {start_us(day)} AS first_us",
        f"unix_micros(last_at) - {start_us(day)} AS last_us",
        *[f"{spread(column)} * {growth(elapsed, column[1])} AS {sum_column(*column)}" for column in SUM_COLUMNS],
    )


def _facts(
    counted: DataFrame, of_keys: DataFrame, scalars: DayScalars, small: Callable[[DataFrame], DataFrame]
) -> DataFrame:
    """Return labels and events as facts of each of their keys, with what was not expected of them."""
    facts = counted.where("fact_us IS NOT NULL").withColumn("score", scalars.score(F.col("value"), F.col("feature")))
    for scope in ("user", "item"):
        facts = facts.join(small(_expected(of_keys, scope, scalars.base_rate)), f"{scope}_key", "left")
    base = f"{scalars.base_rate!r}D"
    expected = facts.selectExpr(
        "fact_us",
        "label",
        "feature",
        "score",
        f"coalesce(user_rate, {base}) AS user_rate",
        f"coalesce(item_rate, {base}) AS item_rate",
        "coalesce(user_value, 0D) AS user_value",
        "coalesce(item_value, 0D) AS item_value",
        "keys",
    ).selectExpr("*", f"least(greatest(user_rate + item_rate - {base}, {MIN_RATE!r}D), {1 - MIN_RATE!r}D) AS both_rate")
    statistics = {
        "label_n": "CASE WHEN label IS NOT NULL THEN 1D END",
        "label_s": "label",
        "label_e": "label - CASE WHEN scope = 'user' THEN item_rate ELSE both_rate END",
        "event_n": "CASE WHEN feature IS NOT NULL THEN 1D END",
        "value_n": "CASE WHEN score IS NOT NULL THEN 1D END",
        "value_s": "score",
        "value_e": "score - item_value - CASE WHEN scope = 'user' THEN 0D ELSE user_value END",
    }
    return expected.selectExpr("*", "inline(keys)").selectExpr(
        "scope",
        "key",
        "fact_us AS time_us",
        *[
            f"({statistics[statistic]}) * {growth('fact_us', half_life)} AS {sum_column(statistic, half_life)}"
            for statistic, half_life in SUM_COLUMNS
        ],
    )


def _expected(of_keys: DataFrame, scope: str, base_rate: float) -> DataFrame:
    """Return the smoothed rate of clicks and mean of values of each user, or item, before the day."""
    label_n, label_s, value_n, value_s = (
        f"get(sums, {columns_of(scope).index((name, _LONGEST))})"
        for name in ("label_n", "label_s", "value_n", "value_s")
    )
    prior = prior_facts(scope, base_rate)
    return of_keys.where(f"scope = '{scope}' AND updated IS NOT NULL").selectExpr(
        f"key AS {scope}_key",
        f"({label_s} + {prior * base_rate!r}D) / ({label_n} + {prior!r}D) AS {scope}_rate",
        f"{value_s} / ({value_n} + {PRIOR_VALUES[scope]!r}D) AS {scope}_value",
    )


def _questions(counted: DataFrame) -> DataFrame:
    """Return the impressions shown as sightings of each of their keys; those of the day ask."""
    shown = counted.where("seen_us IS NOT NULL").selectExpr("impression_id", "seen_us", "inline(keys)")
    return shown.selectExpr(
        "scope", "key", "impression_id", "seen_us AS time_us", "seen_us AS first_us", "seen_us AS last_us"
    )


def _closings(of_keys: DataFrame) -> DataFrame:
    """Return a last question of each key."""
    return of_keys.selectExpr("scope", "key", "owner", f"{_CLOSING} AS time_us")


def _answers(rows: DataFrame) -> DataFrame:
    """Return questions and closings with the sums, and first and last sightings, strictly before their time."""
    before = "OVER (PARTITION BY scope, key ORDER BY time_us RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    answered = rows.selectExpr(
        "scope",
        "key",
        "owner",
        "impression_id",
        "time_us",
        f"min(first_us) {before} AS first_us",
        f"max(last_us) {before} AS last_us",
        *[f"sum({sum_column(*column)}) {before} AS {sum_column(*column)}" for column in SUM_COLUMNS],
    ).where(f"impression_id IS NOT NULL OR time_us = {_CLOSING}")
    return answered.selectExpr(
        "scope",
        "key",
        "owner",
        "impression_id",
        "time_us",
        "first_us",
        "last_us",
        *[
            f"{sum_column(*column)} * {growth(f'-least(time_us, {DAY_US})', column[1])} AS {sum_column(*column)}"
            for column in SUM_COLUMNS
        ],
    )


def _state_after(spark: SparkSession, plan: DedupPlan, closings: DataFrame, scalars: DayScalars) -> DataFrame:
    """Return the day's partition of the state: keys touched by the day, and those of the partitions it takes over."""
    sums = " ".join(f"WHEN '{scope}' THEN {gathered(scope)}" for scope in STATISTICS)
    of_keys = closings.selectExpr(
        "scope",
        "key",
        "owner",
        f"DATE '{plan.day}' AS updated",
        f"timestamp_micros(first_us + {start_us(plan.day)}) AS first_at",
        f"timestamp_micros(last_us + {start_us(plan.day)}) AS last_at",
        f"CASE scope {sums} END AS sums",
    )
    of_log = spark.createDataFrame(scalars.state, "scope string, key bigint, updated date, sums array<double>")
    state = of_keys.unionByName(of_log, allowMissingColumns=True)
    if plan.days_to_merge:
        state = _newest(state.unionByName(_state_of(spark, plan, plan.days_to_merge)))
    return state.withColumn("dt", F.lit(plan.day))


def _state_of(spark: SparkSession, plan: DedupPlan, days: Collection[date]) -> DataFrame:
    """Return partitions of the table without their dt."""
    return read_delta(spark, plan.tables_dir, "running_sums", partitions=in_days(days)).drop("dt")


def _as_it_is(rows: DataFrame) -> DataFrame:
    return rows
