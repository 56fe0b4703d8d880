"""The state of running sums before a day, as the rows of a bucket read it and pass it on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.running_sums import HALF_LIVES, PRIOR_VALUES, STATISTICS, prior_facts
from spark_jobs.arrow_columns import day_number, day_numbers, numbered, runs
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.scope_sums import STATE, sums_before
from spark_jobs.derived.steps import together

_NO_KEY = -2
STORED_STATE = STATE.append(pa.field("dt", pa.date32()))
"""STATE, and the partition that a row lies in."""


class StateRows:
    """Rows of the state, of which those of the keys that a day touches, or that its own partition takes over, are held."""

    def __init__(self, stored: Iterable[pa.Table], plan: DedupPlan, *, keys: np.ndarray | None = None) -> None:
        """`stored`: STORED_STATE of the plan's state_days; `keys` (K,): those touched, all unless given."""
        touched = None if keys is None else np.unique(keys)
        merged = np.array([day_number(day) for day in plan.days_to_merge], np.int64)
        before: list[pa.Table] = []
        taken_over: list[pa.Table] = []
        for rows in stored:
            before.append(rows if touched is None else rows.filter(pa.array(_among(np.asarray(rows["key"]), touched))))
            if len(merged):
                taken_over.append(rows.filter(pa.array(np.isin(day_numbers(rows["dt"]), merged))))
        self._taken_over = together(taken_over, STATE)
        self.before = newest(together(before, STATE))
        """The newest row of each key that the day touches, by scope; of users and of items by key."""

    def after(self, closing: Iterable[pa.Table]) -> pa.Table:
        """Return the rows of the day's own partition, given those of the keys it touches."""
        rows = together(closing, STATE)
        if not len(self._taken_over):
            return rows
        return newest(pa.concat_tables([rows, self._taken_over]))


def _among(keys: np.ndarray, touched: np.ndarray) -> np.ndarray:
    """Return which of the keys (R,) are among the distinct, sorted ones (K,), bool."""
    place = np.searchsorted(touched, keys)
    return np.append(touched, _NO_KEY)[place] == keys


def newest(state: pa.Table) -> pa.Table:
    """Return the newest row of each key, in the order of rows of a file (`stored_state`)."""
    scope, key = numbered(state["scope"])[0], np.asarray(state["key"])
    owner = np.asarray(pc.fill_null(state["owner"], -1))
    order = np.lexsort((day_numbers(state["updated"]), key, owner, scope))
    is_last = np.append(runs(key[order])[1:], True)[: len(key)]
    return state.take(pa.array(order[is_last]))


def base_rates(base: BaseRate, rows: pa.Table) -> np.ndarray:
    """Return the base rate that each of R counted rows is expected to click at, (R,)."""
    return base.of_facts(np.asarray(pc.fill_null(rows["fact_us"], 0), np.int64))


def expected(scope: str, before: pa.Table, key: np.ndarray, base_rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothed rate of clicks and mean of values of users or items that a day starts from, (R,) each.

    `before`: STATE, of distinct keys in order, of other scopes too; `key` (R,), -1 where a row has none; `base_rate` (R,).
    """
    rate, value = base_rate.copy(), np.zeros(len(key))
    of_scope = before.filter(pc.field("scope") == scope)
    keys, sums = np.asarray(of_scope["key"], np.int64), sums_before(scope, of_scope)
    place = np.searchsorted(keys, key)
    is_known = np.append(keys, _NO_KEY)[place] == key
    of = {
        name: sums[place[is_known], STATISTICS[scope].index(name) * len(HALF_LIVES[scope])]
        for name in ("label_n", "label_s", "value_n", "value_s")
    }
    prior = prior_facts(scope, base_rate[is_known])
    rate[is_known] = (of["label_s"] + prior * base_rate[is_known]) / (of["label_n"] + prior)
    value[is_known] = of["value_s"] / (of["value_n"] + PRIOR_VALUES[scope])
    return rate, value
