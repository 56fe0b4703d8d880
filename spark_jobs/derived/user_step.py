"""Rows that share a user: histories, and running sums of users and of their pairs with items and with title tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.key_sums import statistics_of
from bahe_tasks.running_sums import STATISTICS, state_width
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import floats, lists, micros, present
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.build_sequences import EVENT_COLUMNS, build_sequences, events_read
from spark_jobs.derived.counted_rows import start_us, state_keys
from spark_jobs.derived.item_step import KEYED_IMPRESSIONS, OF_ITEMS
from spark_jobs.derived.newest_labels import NewestLabels
from spark_jobs.derived.scope_sums import asked_from, impression_part, keyed_rows, scope_sums, state_rows
from spark_jobs.derived.state_of_keys import StateRows, base_rates, expected
from spark_jobs.derived.steps import KeyOf, Step, column, together
from spark_jobs.derived.token_rows import TokenRows, cat_rows, item_rows, owners_of, token_rows

SHOWN = pa.schema([*KEYED_IMPRESSIONS, ("title_key", pa.string()), ("outcome_value", pa.float64())])
"""Impressions as the item step leaves them."""
HISTORY = pa.schema([arrow_schema("behavior_events").field(name) for name in EVENT_COLUMNS])
OF_KEYS = {
    scope: pa.schema(
        [
            ("key", pa.int64()),
            ("user_key", pa.int64()),
            ("row", pa.int64()),
            ("seen_us", pa.int64()),
            ("fact_us", pa.int64()),
            *((name, pa.float64()) for name in STATISTICS[scope]),
        ]
    )
    for scope in ("token", "cat")
}
"""A counted row for each token of its title or text, or for each categorical value; `row` is the place of its impression in the
bucket, -1 where it asks for nothing."""
OF_USERS = pa.schema(
    [
        *SHOWN,
        arrow_schema("impressions").field("sequence_ends"),
        ("row", pa.int64()),
        ("known_sums", pa.list_(pa.float64())),
        ("pair_sums", pa.list_(pa.float64())),
    ]
)
"""Impressions as the step leaves them: known_sums are the first of IMPRESSION_SUMS, up to the tokens', pair_sums those after them."""


def user_step(plan: DedupPlan, base: BaseRate, newest: NewestLabels) -> Step:
    """Return the step: SHOWN, OF_ITEMS, HISTORY and the state ↦ impressions, sequences, token, cat and state."""
    keys: dict[str, KeyOf] = {
        "impressions": partial(column, name="user_key"),
        "counted": partial(column, name="user_key"),
        "history": _user_of_event,
        "state": _user_of_state,
    }
    return Step("users", keys, partial(_work, plan=plan, base=base, newest=newest))


def _user_of_event(events: pa.Table) -> pa.Array:
    return state_keys("user", events["user_id"])


def _user_of_state(state: pa.Table) -> pa.Array:
    """Return whose state each row is, of users and their pairs."""
    return pc.coalesce(state["owner"], state["key"])


def _work(
    parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan, base: BaseRate, newest: NewestLabels
) -> Iterator[tuple[str, pa.Table]]:
    shown = together(parts["impressions"], SHOWN).sort_by("impression_id")
    history = events_read(chain([HISTORY.empty_table()], parts["history"]), shown, sequences=plan.sequences)
    sequences, ends = build_sequences(history, shown, sequences=plan.sequences)
    yield "sequences", sequences
    rows = together(parts["counted"], OF_ITEMS)
    tokens = token_rows(rows)
    sums = _sums_of(rows, tokens, parts["state"], plan, base, newest)
    yield "state", sums.state
    asked = pc.index_in(rows["impression_id"], shown["impression_id"])
    impression = np.asarray(pc.fill_null(asked, -1), np.int64)  # -1: does not ask
    with_ends = shown.append_column("sequence_ends", ends)
    yield "impressions", _with_known_sums(with_ends, rows, tokens, impression, sums, plan)
    cats = cat_rows(rows)
    yield "token", _rows_of_keys("token", rows, tokens.token_key, tokens.row, impression, sums.statistics["token"])
    yield "cat", _rows_of_keys("cat", rows, cats.key, cats.row, impression, sums.statistics["cat"])


class _Sums(NamedTuple):
    """What comes of R counted rows and their E tokens."""

    base: BaseRate
    of_log: np.ndarray  # (A, state_width), of the rows that ask
    of_users: np.ndarray  # (A, …), `ScopeSums.answers` of the same rows
    of_user_items: np.ndarray  # (A, …), likewise
    of_pairs: np.ndarray  # (Q, …), of their tokens
    statistics: dict[str, np.ndarray]  # (R, statistics) that a row adds to each of its tokens, or categorical values
    state: pa.Table


def _sums_of(
    rows: pa.Table,
    tokens: TokenRows,
    stored: Iterable[pa.Table],
    plan: DedupPlan,
    base: BaseRate,
    newest: NewestLabels,
) -> _Sums:
    asks = present(rows["impression_id"])
    shown_us = np.asarray(rows["seen_us"].filter(pa.array(asks)), np.int64)
    user_key = np.asarray(rows["user_key"], np.int64)
    items = item_rows(rows)
    state = StateRows(stored, plan, keys=np.concatenate([user_key, items.user_item_key, tokens.pair_key]))
    base_rate = base_rates(base, rows)
    rate, value = expected("user", state.before, user_key, base_rate)
    facts = {name: floats(rows[name]) for name in ("label", "score", "is_event", "item_rate", "item_value")}
    facts |= {"user_rate": rate, "user_value": value}
    keyed = {
        "user": (user_key, np.arange(len(rows))),
        "user_item": (items.user_item_key, items.row),
        "pair": (tokens.pair_key, tokens.row),
    }
    statistics = {scope: statistics_of(scope, facts, base_rate) for scope in keyed}
    sums = {
        scope: scope_sums(
            scope,
            keyed_rows(key, rows, statistics[scope], at, asks=asks, numbers=plan.numbers),
            state.before.filter(pc.field("scope") == scope),
            day=plan.day,
        )
        for scope, (key, at) in keyed.items()
    }
    closing = [
        state_rows(
            scope,
            sums[scope],
            day=plan.day,
            owners=None if scope == "user" else owners_of(sums[scope].keys, key, user_key[at]),
        )
        for scope, (key, at) in keyed.items()
    ]
    return _Sums(
        base=base,
        of_log=newest.at(asked_from(shown_us, plan.numbers)),
        of_users=sums["user"].answers,
        of_user_items=sums["user_item"].answers,
        of_pairs=sums["pair"].answers,
        statistics={"token": statistics["pair"], "cat": statistics_of("cat", facts, base_rate)},
        state=state.after(closing),
    )


def _with_known_sums(
    shown: pa.Table, rows: pa.Table, tokens: TokenRows, impression: np.ndarray, sums: _Sums, plan: DedupPlan
) -> pa.Table:
    """Return OF_USERS. `impression` (R,) is the place among `shown` that a counted row asks for."""
    asks = impression >= 0
    asking = impression[asks]
    of_items = np.asarray(pc.list_flatten(rows["item_sums"]), float).reshape(len(asking), state_width("item") + 2)
    known_base = np.full((len(asking), 1), sums.base.known)
    of_asking = np.concatenate([known_base, sums.of_log, sums.of_users, of_items, sums.of_user_items], 1)
    known = np.full((len(shown), of_asking.shape[1]), np.nan)
    known[asking] = of_asking
    row_of = impression[tokens.row][asks[tokens.row]]
    asked_us = asked_from(micros(shown["shown_at"]) - start_us(plan.day), plan.numbers)
    pair = impression_part("pair", sums.of_pairs, row_of, asked_us=asked_us, base=sums.base)
    columns = {
        **{name: shown[name] for name in shown.column_names},
        "row": pa.array(np.arange(len(shown))),
        "known_sums": lists(pa.array(known.ravel()), np.full(len(shown), known.shape[1])),
        "pair_sums": lists(pa.array(pair.ravel()), np.full(len(shown), pair.shape[1])),
    }
    return pa.table([columns[name] for name in OF_USERS.names], schema=OF_USERS)


def _rows_of_keys(
    scope: str, rows: pa.Table, key: np.ndarray, at: np.ndarray, impression: np.ndarray, statistics: np.ndarray
) -> pa.Table:
    """Return OF_KEYS: E of the R `rows` are `at` (E,) and have `key` (E,); `impression` (R,), `statistics` (R, statistics)."""
    columns = {
        **{name: rows[name].take(pa.array(at)) for name in ("user_key", "seen_us", "fact_us")},
        "key": pa.array(key),
        "row": pa.array(impression[at]),
        **{name: pa.array(statistics[at, n]) for n, name in enumerate(STATISTICS[scope])},
    }
    return pa.table([columns[name] for name in OF_KEYS[scope].names], schema=OF_KEYS[scope])
