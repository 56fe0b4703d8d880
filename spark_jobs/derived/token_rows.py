"""Which title tokens each counted row has, and the keys of those."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bahe_tasks.running_sums import state_key, title_tokens
from spark_jobs.arrow_columns import numbered


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
    return TokenRows(row, token_keys[token], pair_keys[pair.reshape(-1)])


def owners_of(keys: np.ndarray, tokens: TokenRows, user_key: np.ndarray) -> pa.Array:
    """Return the user's key of each of the distinct keys of pairs; `user_key` (R,) is that of each row."""
    of_pairs, first = np.unique(tokens.pair_key, return_index=True)
    return pa.array(user_key[tokens.row[first[np.searchsorted(of_pairs, keys)]]])
