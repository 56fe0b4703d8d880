"""Impressions that share a user: all of their sums together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.running_sums import state_width
from spark_jobs.arrow_columns import micros
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.counted_rows import start_us
from spark_jobs.derived.scope_sums import asked_from, impression_part, sums_column
from spark_jobs.derived.steps import KeyOf, Step, column, together
from spark_jobs.derived.token_step import ANSWERS
from spark_jobs.derived.user_step import OF_KEYS, OF_USERS


def impression_step(plan: DedupPlan, base: BaseRate) -> Step:
    """Return the step: OF_USERS and ANSWERS of each scope ↦ impressions with the column `sums`, null for late ones.

    `row`, by which they belong together, is a place in a bucket of the step `users`: buckets must be the same.
    """
    keys: dict[str, KeyOf] = dict.fromkeys(("impressions", *OF_KEYS), partial(column, name="user_key"))
    return Step("impressions", keys, partial(_work, plan=plan, base=base))


def _work(
    parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan, base: BaseRate
) -> Iterator[tuple[str, pa.Table]]:
    shown = together(parts["impressions"], OF_USERS).sort_by("row")
    asked_us = asked_from(micros(shown["shown_at"]) - start_us(plan.day), plan.numbers)
    of_scope = {}
    for scope in OF_KEYS:
        answers = together(parts[scope], ANSWERS)
        values = _matrix(answers["answer"], len(answers), state_width(scope) + 2)
        row_of = np.asarray(answers["row"], np.int64)
        of_scope[scope] = impression_part(scope, values, row_of, asked_us=asked_us, base=base)
    known, pair = (_matrix(shown[name], len(shown), -1) for name in ("known_sums", "pair_sums"))
    sums = sums_column(np.concatenate([known, of_scope["token"], pair, of_scope["cat"]], 1))
    of_day = sums.take(pa.array(np.arange(len(shown)), mask=np.asarray(shown["is_late"], bool)))
    yield "impressions", shown.drop_columns(["known_sums", "pair_sums", "row"]).append_column("sums", of_day)


def _matrix(rows: pa.ChunkedArray, count: int, width: int) -> np.ndarray:
    """Return lists of one length as (R, width); of none, -1 is 0."""
    return np.asarray(pc.list_flatten(rows), float).reshape(count, width if count else max(width, 0))
