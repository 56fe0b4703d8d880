"""Running sums of a day, and the state at its end: `spark_jobs.running_sums` without Spark."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US, statistics_of
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    HALF_LIVES_DAYS,
    MAX_VALUE_SCORE,
    PRIOR_VALUES,
    STATISTICS,
    prior_facts,
    state_key,
)
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.arrow_columns import day_numbers, repeated, runs
from spark_jobs.day_scalars import DayScalars, scalars_of
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.few_rows.counted_rows import CountedRows
from spark_jobs.scope_sums import STATE, KeyedRows, impression_part, scope_sums, state_rows, sums_before, sums_column


class DaySums(NamedTuple):
    """What a run computes."""

    of_impressions: pa.Array
    """The column `sums` of the day's impressions, null for late ones."""
    state: pa.Table
    """The day's partition of the table running_sums."""


def running_sums(plan: DedupPlan, rows: CountedRows, *, num_impressions: int) -> DaySums:
    """Return the sums of the day's impressions and the state at its end."""
    before = _state_before(plan, rows)
    scalars = scalars_of(_added(rows) + _known(before), day=plan.day)
    facts = _facts(rows, before, scalars)
    asked = np.flatnonzero(rows.asked >= 0)
    parts, state = [np.full((len(asked), 1), scalars.base_rate)], [_scalar_rows(scalars)]
    for scope in STATISTICS:
        row, key = rows.keys[scope]
        is_asked = rows.asked[row] >= 0
        keyed = KeyedRows(
            key=key,
            fact_us=rows.fact_us[row],
            is_fact=rows.is_fact[row],
            seen_us=rows.seen_us[row],
            is_seen=rows.is_seen[row],
            is_asked=is_asked,
            statistics=statistics_of(scope, facts, scalars.base_rate)[row],
        )
        sums = scope_sums(scope, keyed, before.filter(pc.field("scope") == scope), day=plan.day)
        row_of = np.searchsorted(asked, row[is_asked])
        parts.append(impression_part(scope, sums.answers, row_of, num_rows=len(asked), base_rate=scalars.base_rate))
        owners = [rows.owners[key] if scope == "pair" else None for key in sums.keys.tolist()]
        state.append(state_rows(scope, sums, owners, day=plan.day))
    return DaySums(_of_impressions(np.concatenate(parts, 1), rows.asked[asked], num_impressions), _merged(plan, state))


def _state_before(plan: DedupPlan, rows: CountedRows) -> pa.Table:
    """Return the newest row of each key that the day touches."""
    if not plan.state_days:
        return STATE.empty_table()
    keys = [key for _, key in rows.keys.values()]
    more = [state_key("all"), *(state_key("feature", feature) for feature in rows.features)]
    touched = pa.array(np.unique(np.concatenate([*keys, np.array(more, np.int64)])))
    return _newest(_state_of(plan, plan.state_days, filters=pc.field("key").isin(touched)))


def _state_of(plan: DedupPlan, days: Collection[date], *, filters: pc.Expression | None = None) -> pa.Table:
    return read_table(
        plan.tables_dir, "running_sums", columns=STATE.names, partitions=in_days(days), filters=filters
    ).cast(STATE)


def _newest(state: pa.Table) -> pa.Table:
    """Return the newest row of each key, by key."""
    key, updated = np.asarray(state["key"]), day_numbers(state["updated"])
    order = np.lexsort((updated, key))
    is_last = np.append(runs(key[order])[1:], True)[: len(key)]
    return state.take(pa.array(order[is_last]))


def _known(before: pa.Table) -> list[dict[str, Any]]:
    """Return the state of the scopes all and feature as `scalars_of` reads it."""
    of_log = before.filter(pc.field("scope").isin(["all", "feature"]))
    return [row | {"feature": None} for row in of_log.select(["key", "updated", "sums"]).to_pylist()]


def _added(rows: CountedRows) -> list[dict[str, Any]]:
    """Return what the facts of each feature, and the labels, add to the scalars."""
    added: list[dict[str, Any]] = []
    of_labels = rows.is_fact & (rows.feature < 0)
    if of_labels.any():
        days_back = np.floor_divide(DAY_US - 1 - rows.fact_us[of_labels], DAY_US)
        weight = 0.5 ** (days_back / BASE_HALF_LIFE_DAYS)
        sums = [float(weight.sum()), float((weight * rows.label[of_labels]).sum())]
        added.append({"key": None, "feature": None, "sums": sums})
    for number, feature in enumerate(rows.features):
        values = rows.value[rows.is_fact & (rows.feature == number)]
        is_early = rows.fact_us[rows.is_fact & (rows.feature == number)] < 0
        sums = []
        for part in (values[is_early], values):
            known = part[~np.isnan(part)]
            sums += [float(len(known)), float(known.sum()), float((known**2).sum())]
        added.append({"key": None, "feature": feature, "sums": sums})
    return added


def _facts(rows: CountedRows, before: pa.Table, scalars: DayScalars) -> dict[str, np.ndarray]:
    """Return what `statistics_of` reads of every row."""
    nothing = (np.nan, np.nan)
    moments = np.array([*(scalars.moments.get(name, nothing) for name in rows.features), nothing])[rows.feature]
    score = np.clip((rows.value - moments[:, 0]) / moments[:, 1], -MAX_VALUE_SCORE, MAX_VALUE_SCORE)
    facts = {"label": rows.label, "is_event": rows.feature >= 0, "score": score}
    for scope in ("user", "item"):
        rate, value = (np.full(len(rows.label), absent) for absent in (scalars.base_rate, 0.0))
        row, key = rows.keys[scope]
        of_scope = before.filter(pc.field("scope") == scope)
        keys, sums = np.asarray(of_scope["key"]), sums_before(scope, of_scope)
        place = np.searchsorted(keys, key)
        is_known = np.append(keys, -1)[place] == key
        of = {name: sums[place[is_known], STATISTICS[scope].index(name) * len(HALF_LIVES_DAYS[scope])]
              for name in ("label_n", "label_s", "value_n", "value_s")}  # fmt: skip
        prior = prior_facts(scope, scalars.base_rate)
        rate[row[is_known]] = (of["label_s"] + prior * scalars.base_rate) / (of["label_n"] + prior)
        value[row[is_known]] = of["value_s"] / (of["value_n"] + PRIOR_VALUES[scope])
        facts |= {f"{scope}_rate": rate, f"{scope}_value": value}
    return facts


def _of_impressions(sums: np.ndarray, asked: np.ndarray, num_impressions: int) -> pa.Array:
    """Return the sums (A, …) of the impressions `asked` (A,) as a column of all impressions."""
    column = sums_column(sums)
    place = np.full(num_impressions, -1)
    place[asked] = np.arange(len(asked))
    return column.take(pa.array(place, mask=place < 0))


def _scalar_rows(scalars: DayScalars) -> pa.Table:
    rows = [dict(zip(("scope", "key", "updated", "sums"), row, strict=True)) for row in scalars.state]
    return pa.Table.from_pylist(rows, schema=STATE)


def _merged(plan: DedupPlan, state: list[pa.Table]) -> pa.Table:
    """Return the day's partition: its own rows, and the newest of the partitions it takes over."""
    rows = pa.concat_tables(state)
    if plan.days_to_merge:
        rows = _newest(pa.concat_tables([rows, _state_of(plan, plan.days_to_merge)]))
    return rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
