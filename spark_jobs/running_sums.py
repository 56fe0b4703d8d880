"""Running sums of a day of many rows: those of each impression, and the state at its end (`bahe_tasks.running_sums`).

Spark brings all rows of a key to one place, and all answers to an impression; what is added up there is numpy's
(`scope_sums`), the same functions that a day of few rows calls in the driver. No plan of Spark's own holds a user with a
twentieth of all events as well: a window of it keeps every sum of every row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import date
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.key_sums import statistics_of
from bahe_tasks.running_sums import HALF_LIVES_DAYS, PRIOR_VALUES, STATISTICS, prior_facts, state_key
from bahe_tasks.schemas import TABLES
from spark_jobs.arrow_columns import floats, lists, numbered, present, repeated
from spark_jobs.day_scalars import DayScalars, day_scalars
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days, read_delta
from spark_jobs.scope_sums import STATE, KeyedRows, impression_part, scope_sums, state_rows, sums_column

_BROADCAST_KEYS = 500_000  # of 16 bytes; a day with more is joined by shuffles
_KEYS_A_TASK = 500_000  # rows of keys that a task holds, about 200 bytes each
_FACTS = ("label", "score", "user_rate", "item_rate", "user_value", "item_value")
_ANSWERS_SCHEMA = pa.schema([("impression_id", pa.string()), ("answer", pa.list_(pa.float64())), *STATE])
_ANSWERS = "impression_id string, answer array<double>, " + ", ".join(
    f"{name} {kind}" for name, kind in TABLES["running_sums"].columns if name != "dt"
)


class DaySums(NamedTuple):
    """What a run computes: `of_impressions` (impression_id, sums) of those not late, and the day's rows of `state`."""

    of_impressions: DataFrame
    state: DataFrame


def running_sums(spark: SparkSession, plan: DedupPlan, rows: DataFrame) -> DaySums:
    """Return the sums of the day's impressions and the partition of the table running_sums. `rows`: `counted_rows`."""
    observed = Observation()
    counted = rows.observe(observed, F.sum(F.size("keys")).alias("keys")).localCheckpoint()
    num_keys = observed.get["keys"] or 0
    small = F.broadcast if num_keys <= _BROADCAST_KEYS else _as_it_is
    before = _state_before(spark, plan, counted, small).localCheckpoint()
    scalars = day_scalars(counted, before, day=plan.day)
    of_keys = before.where(F.col("scope").isin(*STATISTICS) & F.col("updated").isNotNull())
    keyed = _keyed(counted, of_keys, scalars, small).unionByName(of_keys, allowMissingColumns=True)
    num_tasks = max(num_keys // _KEYS_A_TASK + 1, plan_partitions(spark))
    of_bucket = partial(_sums_of_keys, day=plan.day, base_rate=scalars.base_rate)
    answers = keyed.repartition(num_tasks, "key").mapInArrow(of_bucket, _ANSWERS).localCheckpoint()
    asked = answers.where("impression_id IS NOT NULL").select("impression_id", "scope", "answer")
    together = asked.repartition(num_tasks, "impression_id")
    of_impressions = together.mapInArrow(
        partial(_sums_of_impressions, base_rate=scalars.base_rate), "impression_id string, sums array<double>"
    )
    state = answers.where("impression_id IS NULL").drop("impression_id", "answer")
    return DaySums(small(of_impressions), _state_after(spark, plan, state, scalars))


def plan_partitions(spark: SparkSession) -> int:
    """Return the number of partitions of a shuffle."""
    return int(str(spark.conf.get("spark.sql.shuffle.partitions")))


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


def _expected(of_keys: DataFrame, scope: str, base_rate: float) -> DataFrame:
    """Return the smoothed rate of clicks and mean of values of each user, or item, before the day."""
    label_n, label_s, value_n, value_s = (
        f"get(sums, {STATISTICS[scope].index(name) * len(HALF_LIVES_DAYS[scope])})"
        for name in ("label_n", "label_s", "value_n", "value_s")
    )
    prior = prior_facts(scope, base_rate)
    return of_keys.where(f"scope = '{scope}'").selectExpr(
        f"key AS {scope}_key",
        f"({label_s} + {prior * base_rate!r}D) / ({label_n} + {prior!r}D) AS {scope}_rate",
        f"{value_s} / ({value_n} + {PRIOR_VALUES[scope]!r}D) AS {scope}_value",
    )


def _keyed(
    counted: DataFrame, of_keys: DataFrame, scalars: DayScalars, small: Callable[[DataFrame], DataFrame]
) -> DataFrame:
    """Return each counted row once for each of its keys, with what was expected of it."""
    rows = counted.withColumn("score", scalars.score(F.col("value"), F.col("feature")))
    for scope in ("user", "item"):
        rows = rows.join(small(_expected(of_keys, scope, scalars.base_rate)), f"{scope}_key", "left")
    base = f"{scalars.base_rate!r}D"
    absent = {"user_rate": base, "item_rate": base, "user_value": "0D", "item_value": "0D"}
    return rows.selectExpr(
        "impression_id",
        "seen_us",
        "fact_us",
        "feature IS NOT NULL AS is_event",
        *[f"coalesce({name}, {absent[name]}) AS {name}" if name in absent else name for name in _FACTS],
        "inline(keys)",
    )


def _sums_of_keys(batches: Iterator[pa.RecordBatch], *, day: date, base_rate: float) -> Iterator[pa.RecordBatch]:
    """Rows and states of some keys → an answer for each row that asks, and the state of each key at the end of the day."""
    rows = _table(batches)
    if rows is None:
        return
    for scope in STATISTICS:
        of_scope = rows.filter(pc.field("scope") == scope)
        is_state = present(of_scope["updated"])
        before, of_keys = (of_scope.filter(pa.array(mask)) for mask in (is_state, ~is_state))
        facts = {name: floats(of_keys[name]) for name in _FACTS} | {"is_event": floats(of_keys["is_event"])}
        is_asked = present(of_keys["impression_id"])
        keyed = KeyedRows(
            key=np.asarray(of_keys["key"], np.int64),
            fact_us=np.asarray(pc.fill_null(of_keys["fact_us"], 0), np.int64),
            is_fact=present(of_keys["fact_us"]),
            seen_us=np.asarray(pc.fill_null(of_keys["seen_us"], 0), np.int64),
            is_seen=present(of_keys["seen_us"]),
            is_asked=is_asked,
            statistics=statistics_of(scope, facts, base_rate),
        )
        sums = scope_sums(scope, keyed, before.select(STATE.names).cast(STATE), day=day)
        answers = {
            "impression_id": of_keys["impression_id"].filter(pa.array(is_asked)),
            "scope": repeated(scope, pa.string(), len(sums.answers)),
            "answer": lists(pa.array(sums.answers.ravel()), np.full(len(sums.answers), sums.answers.shape[1])),
        }
        yield from _fitted(pa.table(answers))
        first = np.unique(keyed.key, return_index=True)[1]
        owners = of_keys["owner"].take(pa.array(first)).to_pylist()
        yield from _fitted(state_rows(scope, sums, owners, day=day))


def _fitted(rows: pa.Table) -> list[pa.RecordBatch]:
    """Return rows with all columns of _ANSWERS."""
    columns = {
        field.name: rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else repeated(None, field.type, len(rows))
        for field in _ANSWERS_SCHEMA
    }
    return pa.table(columns, schema=_ANSWERS_SCHEMA).to_batches() if len(rows) else []


def _sums_of_impressions(batches: Iterator[pa.RecordBatch], *, base_rate: float) -> Iterator[pa.RecordBatch]:
    """Answers, all of an impression together → its sums."""
    answers = _table(batches)
    if answers is None:
        return
    impression, names = numbered(answers["impression_id"])
    parts = [np.full((len(names), 1), base_rate)]
    for scope in STATISTICS:
        is_of = np.asarray(pc.equal(answers["scope"], scope))
        lists_of = answers["answer"].filter(pa.array(is_of))
        width = len(STATISTICS[scope]) * len(HALF_LIVES_DAYS[scope]) + 2
        values = np.asarray(pc.list_flatten(lists_of), float).reshape(-1, width)
        parts.append(impression_part(scope, values, impression[is_of], num_rows=len(names), base_rate=base_rate))
    columns = {"impression_id": pa.array(names, pa.string()), "sums": sums_column(np.concatenate(parts, 1))}
    yield from pa.table(columns).to_batches()


def _table(batches: Iterator[pa.RecordBatch]) -> pa.Table | None:
    found = [batch for batch in batches if batch.num_rows]
    return pa.Table.from_batches(found).combine_chunks() if found else None


def _state_after(spark: SparkSession, plan: DedupPlan, of_keys: DataFrame, scalars: DayScalars) -> DataFrame:
    """Return the day's partition of the state: keys touched by the day, and those of the partitions it takes over."""
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
