"""Rows that share a title token or a categorical value: its running sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.running_sums import STATISTICS
from spark_jobs.arrow_columns import lists
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.scope_sums import keyed_rows, scope_sums, state_rows
from spark_jobs.derived.state_of_keys import StateRows
from spark_jobs.derived.steps import KeyOf, Step, column, together
from spark_jobs.derived.user_step import OF_KEYS

ANSWERS = pa.schema([("user_key", pa.int64()), ("row", pa.int64()), ("answer", pa.list_(pa.float64()))])
"""`ScopeSums.answers` of a token or value for an impression that asks, whose place in its bucket of users is `row`."""


def token_step(plan: DedupPlan) -> Step:
    """Return the step: OF_KEYS of each scope and the state ↦ ANSWERS of each scope and state."""
    keys: dict[str, KeyOf] = dict.fromkeys((*OF_KEYS, "state"), partial(column, name="key"))
    return Step("tokens", keys, partial(_work, plan=plan))


def _work(parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan) -> Iterator[tuple[str, pa.Table]]:
    rows = {scope: together(parts[scope], schema) for scope, schema in OF_KEYS.items()}
    keys = {scope: np.asarray(of["key"], np.int64) for scope, of in rows.items()}
    state = StateRows(parts["state"], plan, keys=np.concatenate(list(keys.values())))
    closing = []
    for scope, of in rows.items():
        statistics = np.stack([np.asarray(of[name], float) for name in STATISTICS[scope]], 1)
        asks = np.asarray(of["row"], np.int64) >= 0
        keyed = keyed_rows(keys[scope], of, statistics, np.arange(len(of)), asks=asks, numbers=plan.numbers)
        sums = scope_sums(scope, keyed, state.before.filter(pc.field("scope") == scope), day=plan.day)
        closing.append(state_rows(scope, sums, day=plan.day))
        asking = of.filter(pa.array(asks))
        answer = lists(pa.array(sums.answers.ravel()), np.full(len(sums.answers), sums.answers.shape[1]))
        yield scope, pa.table([asking["user_key"], asking["row"], answer], schema=ANSWERS)
    yield "state", state.after(closing)
