"""Rows that share a user: histories, and running sums of users and of their pairs with title tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import statistics_of
from bahe_tasks.running_sums import STATISTICS, state_key, state_width, title_tokens
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import floats, lists, numbered
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.build_sequences import EVENT_COLUMNS, build_sequences, events_read
from spark_jobs.derived.counted_rows import state_keys
from spark_jobs.derived.item_step import KEYED_IMPRESSIONS, OF_ITEMS, keyed_rows
from spark_jobs.derived.scope_sums import impression_part, scope_sums, state_rows
from spark_jobs.derived.state_of_keys import StateRows, expected
from spark_jobs.derived.steps import KeyOf, Step, column, together

SHOWN = pa.schema([*KEYED_IMPRESSIONS, ("title_key", pa.string())])
"""Impressions as the item step leaves them."""
HISTORY = pa.schema([arrow_schema("behavior_events").field(name) for name in EVENT_COLUMNS])
TOKENS = pa.schema(
    [
        ("token_key", pa.int64()),
        ("user_key", pa.int64()),
        ("row", pa.int64()),
        ("impression_id", pa.string()),  # of rows that ask
        ("seen_us", pa.int64()),
        ("fact_us", pa.int64()),
        *((name, pa.float64()) for name in STATISTICS["token"]),
    ]
)
"""A counted row for each token of its title or text; `row` is the place of its impression in the bucket."""
OF_USERS = pa.schema([*SHOWN, arrow_schema("impressions").field("sequence_ends"), ("row", pa.int64()), ("known_sums", pa.list_(pa.float64())), ("pair_sums", pa.list_(pa.float64()))])  # fmt: skip
"""Impressions as the step leaves them: known_sums are the first of IMPRESSION_SUMS, up to the tokens', pair_sums the last."""


def user_step(plan: DedupPlan, base_rate: float) -> Step:
    """Return the step: SHOWN, OF_ITEMS, HISTORY and the state ↦ impressions, sequences, tokens and state."""
    keys: dict[str, KeyOf] = {
        "impressions": partial(column, name="user_key"),
        "counted": partial(column, name="user_key"),
        "history": _user_of_event,
        "state": _user_of_state,
    }
    return Step("users", keys, partial(_work, plan=plan, base_rate=base_rate))


def _user_of_event(events: pa.Table) -> pa.Array:
    return state_keys("user", events["user_id"])


def _user_of_state(state: pa.Table) -> pa.Array:
    """Return whose state each row is, of users and pairs."""
    return pc.coalesce(state["owner"], state["key"])


def _work(
    parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan, base_rate: float
) -> Iterator[tuple[str, pa.Table]]:
    shown = together(parts["impressions"], SHOWN).sort_by("impression_id")
    history = events_read(chain([HISTORY.empty_table()], parts["history"]), shown, sequences=plan.sequences)
    sequences, ends = build_sequences(history, shown, sequences=plan.sequences)
    yield "sequences", sequences

    rows = together(parts["counted"], OF_ITEMS)
    user_key = np.asarray(rows["user_key"], np.int64)
    tokens = _tokens_of(rows)
    state = StateRows(parts["state"], plan, keys=np.concatenate([user_key, tokens.pair_key]))
    rate, value = expected("user", state.before, user_key, base_rate)
    facts = {name: floats(rows[name]) for name in ("label", "score", "item_rate", "item_value")}
    facts |= {"is_event": floats(rows["is_event"]), "user_rate": rate, "user_value": value}
    impression = np.asarray(pc.fill_null(pc.index_in(rows["impression_id"], shown["impression_id"]), -1), np.int64)

    every, asks = np.arange(len(rows)), impression >= 0
    of_user = keyed_rows(user_key, rows, statistics_of("user", facts, base_rate), every)
    users = scope_sums("user", of_user, state.before.filter(pc.field("scope") == "user"), day=plan.day)
    statistics = statistics_of("pair", facts, base_rate)  # those of a token are the same
    of_pair = keyed_rows(tokens.pair_key, rows, statistics, tokens.row)
    pairs = scope_sums("pair", of_pair, state.before.filter(pc.field("scope") == "pair"), day=plan.day)
    closing = [
        state_rows("user", users, day=plan.day),
        state_rows("pair", pairs, day=plan.day, owners=_owners(pairs.keys, tokens.pair_key, user_key[tokens.row])),
    ]
    yield "state", state.after(closing)

    asking = impression[asks]
    item_sums = np.asarray(pc.list_flatten(rows["item_sums"]), float).reshape(len(asking), state_width("item") + 2)
    known = np.full((len(shown), 1 + users.answers.shape[1] + item_sums.shape[1]), np.nan)
    known[asking] = np.concatenate([np.full((len(asking), 1), base_rate), users.answers, item_sums], 1)
    of_pairs = impression[tokens.row][asks[tokens.row]]
    pair = impression_part("pair", pairs.answers, of_pairs, num_rows=len(shown), base_rate=base_rate)
    columns = {
        **{name: shown[name] for name in SHOWN.names},
        "sequence_ends": ends,
        "row": pa.array(np.arange(len(shown))),
        "known_sums": lists(pa.array(known.ravel()), np.full(len(shown), known.shape[1])),
        "pair_sums": lists(pa.array(pair.ravel()), np.full(len(shown), pair.shape[1])),
    }
    yield "impressions", pa.table([columns[name] for name in OF_USERS.names], schema=OF_USERS)
    at = pa.array(tokens.row)
    yield (
        "tokens",
        pa.table(
            [
                pa.array(tokens.token_key),
                rows["user_key"].take(at),
                pa.array(impression[tokens.row]),
                *(rows[name].take(at) for name in ("impression_id", "seen_us", "fact_us")),
                *(pa.array(statistics[tokens.row, n]) for n in range(statistics.shape[1])),
            ],
            schema=TOKENS,
        ),
    )


class _Tokens(NamedTuple):
    """E (row, token) pairs."""

    row: np.ndarray  # (E,) int64
    token_key: np.ndarray  # (E,) int64
    pair_key: np.ndarray  # (E,) int64


def _tokens_of(rows: pa.Table) -> _Tokens:
    """Return the tokens of each row's text."""
    text, texts = numbered(rows["text"])
    user, users = numbered(rows["user_id"])
    tokens_of = [title_tokens(words) for words in texts]
    number_of = {token: n for n, token in enumerate(dict.fromkeys(t for tokens in tokens_of for t in tokens))}
    counts = np.array([*map(len, tokens_of), 0], np.int64)  # the last is that of rows without a text
    starts = np.cumsum(counts) - counts
    flat = np.array([number_of[token] for tokens in tokens_of for token in tokens], np.int64)
    of_row = counts[text]
    row = np.repeat(np.arange(len(user)), of_row)
    within = np.arange(len(row)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    token = flat[np.repeat(starts[text], of_row) + within] if len(flat) else np.zeros(0, np.int64)
    words = list(number_of)
    distinct, pair = np.unique(user[row] * max(len(words), 1) + token, return_inverse=True)
    owner, owned = np.divmod(distinct, max(len(words), 1))
    pairs = zip(owner.tolist(), owned.tolist(), strict=True)
    pair_keys = np.array([state_key("pair", users[u], words[t]) for u, t in pairs], np.int64)
    token_keys = np.array([state_key("token", word) for word in words], np.int64)
    return _Tokens(row, token_keys[token], pair_keys[pair.reshape(-1)])


def _owners(keys: np.ndarray, pair_key: np.ndarray, user_key: np.ndarray) -> pa.Array:
    """Return the user's key of each of the distinct, sorted keys of pairs."""
    of_pairs, first = np.unique(pair_key, return_index=True)
    return pa.array(user_key[first[np.searchsorted(of_pairs, keys)]])
