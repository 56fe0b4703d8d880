"""Running sums of a day, and the state at its end: `spark_jobs.running_sums` without Spark."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US, KeyState, Timed, faded, key_sums, statistics_of, token_means
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    HALF_LIVES_DAYS,
    IMPRESSION_SUMS,
    MAX_VALUE_SCORE,
    PRIOR_VALUES,
    STATISTICS,
    prior_facts,
    state_key,
    state_width,
)
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.counted_rows import start_us
from spark_jobs.day_scalars import DayScalars, scalars_of
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.few_rows.columns import day_number, day_numbers, lists, micros, nullable, present, repeated, runs
from spark_jobs.few_rows.counted_rows import CountedRows

_STATE = pa.schema([field for field in arrow_schema("running_sums") if field.name != "dt"])


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
    facts = _facts(plan, rows, before, scalars)
    asked = np.flatnonzero(rows.asked >= 0)
    parts, state = [np.full((len(asked), 1), scalars.base_rate)], []
    for scope in STATISTICS:
        row, key = rows.keys[scope]
        keys, at = np.unique(key, return_inverse=True)
        at = at.reshape(-1)
        is_fact, is_seen, is_asked = rows.is_fact[row], rows.is_seen[row], rows.asked[row] >= 0
        statistics = statistics_of(scope, facts, scalars.base_rate)  # of every row, as if it were a fact
        question = Timed(at[is_asked], rows.seen_us[row[is_asked]])
        answers, closing = key_sums(
            scope,
            _opening(plan, scope, keys, before),
            Timed(at[is_fact], rows.fact_us[row[is_fact]]),
            statistics[row[is_fact]],
            Timed(at[is_seen], rows.seen_us[row[is_seen]]),
            question,
        )
        gap_s, age_s = ((question.time_us - times) / 1e6 for times in (answers.last_us, answers.first_us))
        of_row = np.searchsorted(asked, row[is_asked])
        if scope in ("user", "item"):
            parts.append(np.concatenate([answers.sums, gap_s[:, None], age_s[:, None]], 1)[np.argsort(of_row)])
        else:
            base_rate = np.full(len(asked), scalars.base_rate)
            parts.append(token_means(scope, of_row, answers.sums, gap_s, age_s, base_rate=base_rate))
        state.append(_state_rows(plan, scope, keys, closing, rows.owners))
    return DaySums(
        _of_impressions(np.concatenate(parts, 1), rows.asked[asked], num_impressions),
        _merged(plan, [*state, _scalar_rows(scalars)]),
    )


def _state_before(plan: DedupPlan, rows: CountedRows) -> pa.Table:
    """Return the newest row of each key that the day touches."""
    if not plan.state_days:
        return _STATE.empty_table()
    keys = [key for _, key in rows.keys.values()]
    more = [state_key("all"), *(state_key("feature", feature) for feature in rows.features)]
    touched = pa.array(np.unique(np.concatenate([*keys, np.array(more, np.int64)])))
    return _newest(_state_of(plan, plan.state_days, filters=pc.field("key").isin(touched)))


def _state_of(plan: DedupPlan, days: Collection[date], *, filters: pc.Expression | None = None) -> pa.Table:
    return read_table(
        plan.tables_dir, "running_sums", columns=_STATE.names, partitions=in_days(days), filters=filters
    ).cast(_STATE)


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


def _facts(plan: DedupPlan, rows: CountedRows, before: pa.Table, scalars: DayScalars) -> dict[str, np.ndarray]:
    """Return what `statistics_of` reads of every row."""
    nothing = (np.nan, np.nan)
    moments = np.array([*(scalars.moments.get(name, nothing) for name in rows.features), nothing])[rows.feature]
    score = np.clip((rows.value - moments[:, 0]) / moments[:, 1], -MAX_VALUE_SCORE, MAX_VALUE_SCORE)
    facts = {"label": rows.label, "is_event": rows.feature >= 0, "score": score}
    for scope in ("user", "item"):
        rate, value = (np.full(len(rows.label), absent) for absent in (scalars.base_rate, 0.0))
        row, key = rows.keys[scope]
        keys, sums = _sums_of(scope, before)
        place = np.searchsorted(keys, key)
        is_known = np.append(keys, -1)[place] == key
        of = {name: sums[place[is_known], STATISTICS[scope].index(name) * len(HALF_LIVES_DAYS[scope])]
              for name in ("label_n", "label_s", "value_n", "value_s")}  # fmt: skip
        prior = prior_facts(scope, scalars.base_rate)
        rate[row[is_known]] = (of["label_s"] + prior * scalars.base_rate) / (of["label_n"] + prior)
        value[row[is_known]] = of["value_s"] / (of["value_n"] + PRIOR_VALUES[scope])
        facts |= {f"{scope}_rate": rate, f"{scope}_value": value}
    return facts


def _sums_of(scope: str, before: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted keys of a scope and their sums, (K,) and (K, state_width)."""
    rows = before.filter(pc.field("scope") == scope)
    return np.asarray(rows["key"]), np.asarray(pc.list_flatten(rows["sums"])).reshape(-1, state_width(scope))


def _opening(plan: DedupPlan, scope: str, keys: np.ndarray, before: pa.Table) -> KeyState:
    """Return the state of `keys` (K,) at the start of the day."""
    rows = before.filter(pc.field("scope") == scope)
    known, sums = _sums_of(scope, before)
    place = np.searchsorted(keys, known)
    days = day_number(plan.day) - 1 - day_numbers(rows["updated"])
    opening = np.zeros((len(keys), state_width(scope)))
    opening[place] = faded(sums, scope, days * DAY_US)
    sightings = np.full((2, len(keys)), np.nan)
    for of_keys, name in zip(sightings, ("first_at", "last_at"), strict=True):
        times = np.where(present(rows[name]), micros(rows[name]) - start_us(plan.day), np.nan)
        of_keys[place] = times
    return KeyState(opening, *sightings)


def _of_impressions(sums: np.ndarray, asked: np.ndarray, num_impressions: int) -> pa.Array:
    """Return the sums (A, …) of the impressions `asked` (A,) as a column of all impressions."""
    column = lists(nullable(sums.ravel()), np.full(len(sums), len(IMPRESSION_SUMS)))
    place = np.full(num_impressions, -1)
    place[asked] = np.arange(len(asked))
    return column.take(pa.array(place, mask=place < 0))


def _state_rows(plan: DedupPlan, scope: str, keys: np.ndarray, closing: KeyState, owners: dict[int, int]) -> pa.Table:
    def instants(times_us: np.ndarray) -> pa.Array:
        absent = np.isnan(times_us)
        micros_of = np.where(absent, 0, times_us).astype(np.int64) + start_us(plan.day)
        return pa.array(micros_of, mask=absent).cast(pa.timestamp("us", "UTC"))

    count = len(keys)
    return pa.table(
        {
            "scope": repeated(scope, pa.string(), count),
            "key": pa.array(keys, pa.int64()),
            "owner": pa.array(
                [owners[key] for key in keys.tolist()] if scope == "pair" else [None] * count, pa.int64()
            ),
            "updated": repeated(plan.day, pa.date32(), count),
            "first_at": instants(closing.first_us),
            "last_at": instants(closing.last_us),
            "sums": lists(pa.array(closing.sums.ravel()), np.full(count, state_width(scope))),
        },
        schema=_STATE,
    )


def _scalar_rows(scalars: DayScalars) -> pa.Table:
    rows = [dict(zip(("scope", "key", "updated", "sums"), row, strict=True)) for row in scalars.state]
    return pa.Table.from_pylist(rows, schema=_STATE)


def _merged(plan: DedupPlan, state: list[pa.Table]) -> pa.Table:
    """Return the day's partition: its own rows, and the newest of the partitions it takes over."""
    rows = pa.concat_tables(state)
    if plan.days_to_merge:
        rows = _newest(pa.concat_tables([rows, _state_of(plan, plan.days_to_merge)]))
    return rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
