"""The sums of keys of one scope, as arrays.

Rows are (row, key) pairs: one row of the log has one user, perhaps an item, and a token and a pair for each word.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.config import NumbersConfig
from bahe_tasks.key_sums import DAY_US, KeyState, Timed, cat_means, faded, key_sums, token_means
from bahe_tasks.running_sums import IMPRESSION_SUMS, state_width
from bahe_tasks.stored_sums import stored_sums
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import day_number, day_numbers, lists, micros, nullable, present, repeated
from spark_jobs.derived.counted_rows import start_us

STATE = pa.schema([field for field in arrow_schema("running_sums") if field.name != "dt"])
"""Columns of the state, without the partition."""


class KeyedRows(NamedTuple):
    """E rows, each with one key of the scope; times are µs since the start of the day."""

    key: np.ndarray  # (E,) int64
    fact_us: np.ndarray  # (E,) int64
    is_fact: np.ndarray  # (E,) bool
    seen_us: np.ndarray  # (E,) int64
    is_seen: np.ndarray  # (E,) bool
    asked_us: np.ndarray  # (E,) int64, as of when its sums are wanted
    is_asked: np.ndarray  # (E,) bool, whether they are
    statistics: np.ndarray  # (E, statistics), what it adds if it is a fact


def asked_from(shown_us: np.ndarray, numbers: NumbersConfig) -> np.ndarray:
    """Return as of when what was shown so long after the start of the day, (R,) int64, reads sums: then, or at the day's start."""
    return shown_us if numbers.as_of == "impression" else np.zeros_like(shown_us)


def keyed_rows(
    key: np.ndarray,
    rows: pa.Table,
    statistics: np.ndarray,
    at: np.ndarray,
    *,
    asks: np.ndarray,
    numbers: NumbersConfig,
) -> KeyedRows:
    """Return (row, key) pairs: E of the R `rows` are `at` (E,). `key` (E,), `statistics` (R, statistics), `asks` (R,) bool."""
    seen, fact = rows["seen_us"], rows["fact_us"]
    seen_us = np.asarray(pc.fill_null(seen, 0), np.int64)[at]
    return KeyedRows(
        key=key,
        fact_us=np.asarray(pc.fill_null(fact, 0), np.int64)[at],
        is_fact=present(fact)[at],
        seen_us=seen_us,
        is_seen=present(seen)[at],
        asked_us=asked_from(seen_us, numbers),
        is_asked=asks[at],
        statistics=statistics[at],
    )


class ScopeSums(NamedTuple):
    """What comes of the rows of a scope."""

    answers: np.ndarray  # (Q, state_width + 2), sums of the rows that ask, and seconds since last and first shown
    keys: np.ndarray  # (K,) int64, sorted
    closing: KeyState  # of each key, at the end of the day


def scope_sums(scope: str, rows: KeyedRows, before: pa.Table, *, day: date) -> ScopeSums:
    """Return the sums of the rows that ask, and of each key at the end of the day.

    `before`: STATE, at most one row for each of the keys.
    """
    keys, at = np.unique(rows.key, return_inverse=True)
    at = at.reshape(-1)
    asked = Timed(at[rows.is_asked], rows.asked_us[rows.is_asked])
    found, closing = key_sums(
        scope,
        _opening(scope, keys, before, day),
        Timed(at[rows.is_fact], rows.fact_us[rows.is_fact]),
        rows.statistics[rows.is_fact],
        Timed(at[rows.is_seen], rows.seen_us[rows.is_seen]),
        asked,
    )
    gap_s, age_s = ((asked.time_us - times) / 1e6 for times in (found.last_us, found.first_us))
    return ScopeSums(np.concatenate([found.sums, gap_s[:, None], age_s[:, None]], 1), keys, closing)


def state_rows(scope: str, sums: ScopeSums, *, day: date, owners: pa.Array | None = None) -> pa.Table:
    """Return the state of a scope's keys at the end of the day, by owner and key; `owners` are theirs, if they have any."""
    if owners is not None:
        order = np.argsort(np.asarray(owners), kind="stable")  # keys are in order
        owners = owners.take(pa.array(order))
        sums = ScopeSums(sums.answers, sums.keys[order], KeyState(*(of_keys[order] for of_keys in sums.closing)))

    def instants(times_us: np.ndarray) -> pa.Array:
        absent = np.isnan(times_us)
        since_1970 = np.where(absent, 0, times_us).astype(np.int64) + start_us(day)
        return pa.array(since_1970, mask=absent).cast(pa.timestamp("us", "UTC"))

    count = len(sums.keys)
    columns = {
        "scope": repeated(scope, pa.string(), count),
        "key": pa.array(sums.keys, pa.int64()),
        "owner": repeated(None, pa.int64(), count) if owners is None else owners,
        "updated": repeated(day, pa.date32(), count),
        "first_at": instants(sums.closing.first_us),
        "last_at": instants(sums.closing.last_us),
        "sums": lists(pa.array(sums.closing.sums.ravel()), np.full(count, state_width(scope))),
    }
    return pa.table(columns, schema=STATE)


def impression_part(
    scope: str, answers: np.ndarray, row_of: np.ndarray, *, asked_us: np.ndarray, base: BaseRate
) -> np.ndarray:
    """Return the part of IMPRESSION_SUMS of tokens, pairs or categorical values of R impressions, (R, …), from their answers,
    which belong to `row_of` (Q,)."""
    base_rate = base.of_questions(asked_us)
    sums, gap_s, age_s = answers[:, :-2], answers[:, -2], answers[:, -1]
    if scope == "cat":
        return cat_means(row_of, sums, base_rate=base_rate)
    return token_means(scope, row_of, sums, gap_s, age_s, base_rate=base_rate)


def sums_column(sums: np.ndarray) -> pa.ListArray:
    """Return (R, len(IMPRESSION_SUMS)) as the column `sums`, NaN as null."""
    return lists(nullable(sums.ravel()), np.full(len(sums), len(IMPRESSION_SUMS)))


def sums_before(scope: str, before: pa.Table) -> np.ndarray:
    """Return the sums of rows of one scope, (rows, state_width)."""
    return stored_sums(before["sums"], state_width(scope))


def _opening(scope: str, keys: np.ndarray, before: pa.Table, day: date) -> KeyState:
    place = np.searchsorted(keys, np.asarray(before["key"]))
    days = day_number(day) - 1 - day_numbers(before["updated"])
    opening = np.zeros((len(keys), state_width(scope)))
    opening[place] = faded(sums_before(scope, before), scope, days * DAY_US)
    sightings = np.full((2, len(keys)), np.nan)
    for of_keys, name in zip(sightings, ("first_at", "last_at"), strict=True):
        of_keys[place] = np.where(present(before[name]), micros(before[name]) - start_us(day), np.nan)
    return KeyState(opening, *sightings)
