"""Running sums of a day: those of each impression, and the state at its end (`bahe_tasks.running_sums`).

Unusual: one window over the facts of every key answers all questions. The state before the day enters it as a first
fact, the state after it leaves as the answer to a last question, and a fact of time t is scaled by 2^(t / half-life), so
that sums fade by one factor when they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
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
    partitions = read_delta(spark, plan.tables_dir, "running_sums")
    before = _state_before(spark, plan, counted, partitions, small).localCheckpoint()
    scalars = day_scalars(counted, before, day=plan.day)
    of_keys = before.where(F.col("scope").isin(*STATISTICS))
    start = start_us(plan.day)
    in_time = (
        _openings(of_keys, start)
        .unionByName(_facts(counted, of_keys, scalars, start, small), allowMissingColumns=True)
        .unionByName(_questions(counted), allowMissingColumns=True)
        .unionByName(_closings(of_keys), allowMissingColumns=True)
    )
    answers = _answers(in_time, start).localCheckpoint()
    asked = answers.where("impression_id IS NOT NULL")
    return DaySums(
        of_impressions=small(impression_sums(asked, base_rate=scalars.base_rate)),
        state=_state_after(spark, plan, answers.where("impression_id IS NULL"), scalars, partitions),
    )


def _state_before(
    spark: SparkSession, plan: DedupPlan, counted: DataFrame, partitions: DataFrame, small: Callable[[DataFrame], DataFrame]
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
    state = partitions.where(in_days(plan.state_days)).drop("dt", "owner")
    of_touched = state.join(small(touched.select("scope", "key")), ["scope", "key"], "left_semi")
    return _newest(touched.unionByName(of_touched, allowMissingColumns=True))


def _newest(rows: DataFrame) -> DataFrame:
    """Return the newest row of each key, and its owner from whichever row has one."""
    row = F.struct("updated", "first_at", "last_at", "sums")
    newest = rows.groupBy("scope", "key").agg(
        F.max("owner").alias("owner"), F.max_by(row, F.col("updated")).alias("row")
    )
    return newest.select("scope", "key", "owner", "row.*")


def _openings(of_keys: DataFrame, start: int) -> DataFrame:
    """Return the state before the day as the first fact of each key."""
    old = of_keys.where("updated IS NOT NULL")
    elapsed = (F.unix_date("updated") + 1) * F.lit(DAY_US) - F.lit(start)
    columns = spread(F.col("sums"), F.col("scope"))
    return old.select(
        "scope",
        "key",
        F.lit(_OPENING).alias("time_us"),
        F.unix_micros("first_at").alias("first_us"),
        F.unix_micros("last_at").alias("last_us"),
        *[
            (columns[sum_column(*column)] * growth(elapsed, column[1])).alias(sum_column(*column))
            for column in SUM_COLUMNS
        ],
    )


def _facts(counted: DataFrame, of_keys: DataFrame, scalars: DayScalars, start: int, small: Callable[[DataFrame], DataFrame]) -> DataFrame:
    """Return labels and events as facts of each of their keys, with what was not expected of them."""
    scored = counted.where("fact_us IS NOT NULL").withColumn(
        "score", scalars.score(F.col("value"), F.col("feature"))
    )
    for scope in ("user", "item"):
        scored = scored.join(small(_expected(of_keys, scope, scalars.base_rate)), f"{scope}_key", "left")
    rate = {scope: F.coalesce(f"{scope}_rate", F.lit(scalars.base_rate)) for scope in ("user", "item")}
    value = {scope: F.coalesce(f"{scope}_value", F.lit(0.0)) for scope in ("user", "item")}
    both = _clipped(rate["user"] + rate["item"] - scalars.base_rate)
    scope, label, score = F.col("scope"), F.col("label"), F.col("score")
    statistics = {
        "label_n": F.when(label.isNotNull(), 1.0),
        "label_s": label,
        "label_e": F.when(scope == "user", F.col("label_of_user")).otherwise(F.col("label_of_token")),
        "event_n": F.when(F.col("feature").isNotNull(), 1.0),
        "value_n": F.when(score.isNotNull(), 1.0),
        "value_s": score,
        "value_e": F.when(scope == "user", F.col("value_of_user")).otherwise(F.col("value_of_token")),
    }
    residuals = {
        "label_of_user": label - rate["item"],
        "label_of_token": label - both,
        "value_of_user": score - value["item"],
        "value_of_token": score - value["user"] - value["item"],
    }
    weighed = scored.select(
        "fact_us", "label", "feature", "score", *[column.alias(name) for name, column in residuals.items()], "keys"
    ).select("*", F.inline("keys"))
    elapsed = F.col("fact_us") - start
    return weighed.select(
        "scope",
        "key",
        F.col("fact_us").alias("time_us"),
        *[
            (statistics[statistic] * growth(elapsed, half_life)).alias(sum_column(statistic, half_life))
            for statistic, half_life in SUM_COLUMNS
        ],
    )


def _expected(of_keys: DataFrame, scope: str, base_rate: float) -> DataFrame:
    """Return the smoothed rate of clicks and mean of values of each user, or item, before the day."""
    longest = {
        name: F.get("sums", F.lit(columns_of(scope).index((name, _LONGEST))))
        for name in ("label_n", "label_s", "value_n", "value_s")
    }
    prior = prior_facts(scope, base_rate)
    return of_keys.where((F.col("scope") == scope) & F.col("updated").isNotNull()).select(
        F.col("key").alias(f"{scope}_key"),
        ((longest["label_s"] + prior * base_rate) / (longest["label_n"] + prior)).alias(f"{scope}_rate"),
        (longest["value_s"] / (longest["value_n"] + PRIOR_VALUES[scope])).alias(f"{scope}_value"),
    )


def _questions(counted: DataFrame) -> DataFrame:
    """Return the impressions shown as sightings of each of their keys; those of the day ask."""
    seen = F.col("seen_us")
    shown = counted.where("seen_us IS NOT NULL").select("impression_id", "seen_us", F.inline("keys"))
    return shown.select(
        "scope",
        "key",
        "impression_id",
        seen.alias("time_us"),
        seen.alias("first_us"),
        seen.alias("last_us"),
    )


def _closings(of_keys: DataFrame) -> DataFrame:
    """Return a last question of each key."""
    return of_keys.select("scope", "key", "owner", F.lit(_CLOSING).alias("time_us"))


def _answers(rows: DataFrame, start: int) -> DataFrame:
    """Return questions and closings with the sums, and first and last sightings, strictly before their time."""
    before = Window.partitionBy("scope", "key").orderBy("time_us").rangeBetween(Window.unboundedPreceding, -1)
    names = [sum_column(*column) for column in SUM_COLUMNS]
    answered = rows.select(
        "scope",
        "key",
        "owner",
        "impression_id",
        "time_us",
        F.min("first_us").over(before).alias("first_us"),
        F.max("last_us").over(before).alias("last_us"),
        *[F.sum(name).over(before).alias(name) for name in names],
    ).where(F.col("impression_id").isNotNull() | (F.col("time_us") == _CLOSING))
    asked = F.when(F.col("time_us") == _CLOSING, F.lit(start + DAY_US)).otherwise(F.col("time_us"))
    faded = {
        sum_column(*column): F.col(sum_column(*column)) * growth(F.lit(start) - asked, column[1])
        for column in SUM_COLUMNS
    }
    return answered.withColumns(faded)


def _state_after(
    spark: SparkSession, plan: DedupPlan, closings: DataFrame, scalars: DayScalars, partitions: DataFrame
) -> DataFrame:
    """Return the day's partition of the state: keys touched by the day, and those of the partitions it takes over."""
    sums = F.lit(None).cast("array<double>")
    for scope in STATISTICS:
        sums = F.when(F.col("scope") == scope, gathered(scope)).otherwise(sums)
    of_keys = closings.select(
        "scope",
        "key",
        "owner",
        F.lit(plan.day).alias("updated"),
        _instant("first_us").alias("first_at"),
        _instant("last_us").alias("last_at"),
        sums.alias("sums"),
    )
    of_log = spark.createDataFrame(scalars.state, "scope string, key bigint, updated date, sums array<double>")
    state = of_keys.unionByName(of_log, allowMissingColumns=True)
    if plan.days_to_merge:
        state = _newest(state.unionByName(partitions.where(in_days(plan.days_to_merge)).drop("dt")))
    return state.withColumn("dt", F.lit(plan.day))


def _instant(column: str) -> Column:
    return F.timestamp_micros(F.col(column))


def _clipped(rate: Column) -> Column:
    return F.greatest(F.least(rate, F.lit(1 - MIN_RATE)), F.lit(MIN_RATE))


def _as_it_is(rows: DataFrame) -> DataFrame:
    return rows
