"""Which title tokens, which item and which categorical values each counted row has, and the keys of its pairs with its user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import keys_of_pairs
from bahe_tasks.running_sums import state_key, title_tokens
from spark_jobs.arrow_columns import numbered, present, whole


class TokenRows(NamedTuple):
    """E (row, token) pairs."""

    row: np.ndarray  # (E,) int64
    token_key: np.ndarray  # (E,) int64
    pair_key: np.ndarray  # (E,) int64


def token_rows(rows: pa.Table) -> TokenRows:
    """Return the tokens of the `text` of each of R rows, in their order, and of its user."""
    text, texts = numbered(rows["text"])
    user, users = numbered(rows["user_id"])
    tokens_of = [title_tokens(words) for words in texts]
    number_of = {token: n for n, token in enumerate(dict.fromkeys(t for tokens in tokens_of for t in tokens))}
    counts = np.array([*map(len, tokens_of), 0], np.int64)  # the last is that of rows without a text
    flat = np.array([number_of[token] for tokens in tokens_of for token in tokens], np.int64)
    row, place = members_of_rows(text, counts)
    token = flat[place]
    words = list(number_of)
    token_keys = np.array([state_key("token", word) for word in words], np.int64)
    return TokenRows(row, token_keys[token], keys_of_pairs("pair", users, user[row], words, token))


def members_of_rows(group: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the place of each of E members of the groups that R rows have, (E,) int64 each, row after row.

    `group` (R,) are places among the groups, `sizes` (G,) how many members each has; members stand group behind group.
    """
    begins, of_row = np.cumsum(sizes) - sizes, sizes[group]
    row_of = np.repeat(np.arange(len(group)), of_row)
    within = np.arange(len(row_of)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    return row_of, np.repeat(begins[group], of_row) + within


class ItemRows(NamedTuple):
    """M rows that have an item."""

    row: np.ndarray  # (M,) int64
    user_item_key: np.ndarray  # (M,) int64


def item_rows(rows: pa.Table) -> ItemRows:
    """Return those of R rows that have an item, and the key of user and item."""
    row = np.flatnonzero(present(rows["item_id"]))
    (user, users), (item, items) = (numbered(rows[name].take(pa.array(row))) for name in ("user_id", "item_id"))
    return ItemRows(row, keys_of_pairs("user_item", users, user, items, item))


class CatRows(NamedTuple):
    """E (row, categorical value) pairs."""

    row: np.ndarray  # (E,) int64
    key: np.ndarray  # (E,) int64


def cat_rows(rows: pa.Table) -> CatRows:
    """Return the categorical values of each of R rows."""
    keys = whole(rows["cat_keys"])
    return CatRows(np.asarray(pc.list_parent_indices(keys), np.int64), np.asarray(pc.list_flatten(keys), np.int64))


def owners_of(keys: np.ndarray, pair_key: np.ndarray, user_key: np.ndarray) -> pa.Array:
    """Return the user's key of each of the distinct `keys` of pairs; `pair_key` (E,) and `user_key` (E,) belong together."""
    of_pairs, first = np.unique(pair_key, return_index=True)
    return pa.array(user_key[first[np.searchsorted(of_pairs, keys)]])
