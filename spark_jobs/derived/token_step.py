"""Rows that share a title token: its running sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from bahe_tasks.running_sums import STATISTICS
from spark_jobs.arrow_columns import lists, present
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.scope_sums import keyed_rows, scope_sums, state_rows
from spark_jobs.derived.state_of_keys import StateRows
from spark_jobs.derived.steps import KeyOf, Step, column, together
from spark_jobs.derived.user_step import TOKENS

ANSWERS = pa.schema([("user_key", pa.int64()), ("row", pa.int64()), ("answer", pa.list_(pa.float64()))])
"""`ScopeSums.answers` of a token for an impression that asks, whose place in its bucket of users is `row`."""


def token_step(plan: DedupPlan) -> Step:
    """Return the step: TOKENS and the state ↦ answers and state."""
    keys: dict[str, KeyOf] = {"tokens": partial(column, name="token_key"), "state": partial(column, name="key")}
    return Step("tokens", keys, partial(_work, plan=plan))


def _work(parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan) -> Iterator[tuple[str, pa.Table]]:
    rows = together(parts["tokens"], TOKENS)
    key = np.asarray(rows["token_key"], np.int64)
    state = StateRows(parts["state"], plan, keys=key)
    statistics = np.stack([np.asarray(rows[name], float) for name in STATISTICS["token"]], 1)
    keyed = keyed_rows(key, rows, statistics, np.arange(len(rows)))
    sums = scope_sums("token", keyed, state.before, day=plan.day)
    yield "state", state.after([state_rows("token", sums, day=plan.day)])
    asking = rows.filter(pa.array(present(rows["impression_id"])))
    answer = lists(pa.array(sums.answers.ravel()), np.full(len(sums.answers), sums.answers.shape[1]))
    yield "answers", pa.table([asking["user_key"], asking["row"], answer], schema=ANSWERS)
