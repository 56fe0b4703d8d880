"""The sums of (user_id, item_id) pairs as of the end of the champion's day: from its published state, and for what is not published from the one behind it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import Config
from bahe_tasks.key_sums import cat_means, keys_of_pairs, token_means
from bahe_tasks.running_sums import state_key, title_tokens
from bahe_tasks.stages.state_as_of import StateAsOf, active_state
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.promotion_rules import ModelVersion
from spark_jobs.derived.token_rows import members_of_rows


def published_pair_sums(
    frame: pd.DataFrame,
    titles: Mapping[str, str],
    cat: Mapping[str, np.ndarray],
    champion: ModelVersion,
    config: Config,
) -> np.ndarray:
    """Return the sums of P pairs, (P, len(IMPRESSION_SUMS)) float64. The champion's embeddings must be published.

    `titles`: of the items that have one; `cat`: categorical columns, (P,) object each, None = absent. Sums of users, items and words that
    are not published are looked up in the state they were published from; a value of a column that is not published has sums of 0.
    """
    rows = read_table(config.tables_dir, "published_sums", partitions=f"model_version = {champion.version}")
    of_one = pc.is_in(rows["scope"], pa.array(["user", "item", "token"]))  # pairs are many
    published = set(rows["key"].filter(of_one).to_pylist())
    users, items = (
        [name for name in frame[f"{scope}_id"].unique() if state_key(scope, name) not in published]
        for scope in ("user", "item")
    )
    words = {title: title_tokens(title) for title in set(titles.values())}
    heard = {word for word in set(chain(*words.values())) if state_key("token", word) in published}
    of_words = sorted(title for title, tokens in words.items() if not heard.issuperset(tokens))
    if users or items or of_words:
        others = active_state(users, items, of_words, champion.day, config)
        rows = pa.concat_tables([rows.select(others.column_names), others])
        rows = rows.filter(pa.array(~rows["key"].to_pandas().duplicated().to_numpy()))
    return pair_sums(frame, titles, cat, StateAsOf(rows, champion.day))


def pair_sums(
    frame: pd.DataFrame, titles: Mapping[str, str], cat: Mapping[str, np.ndarray], state: StateAsOf
) -> np.ndarray:
    """Return the sums of the columns user_id and item_id, (P, len(IMPRESSION_SUMS)) float64, NaN = absent."""
    base = state.base_rate()
    user_of, users = pd.factorize(frame["user_id"])
    item_of, items = pd.factorize(frame["item_id"])
    tokens_of = [title_tokens(titles[item]) if item in titles else [] for item in items]
    counts = np.array([len(tokens) for tokens in tokens_of], np.int64)
    number_of, tokens = pd.factorize(np.array([token for of_item in tokens_of for token in of_item], object))
    row_of, place = members_of_rows(item_of, counts)
    token = number_of[place]
    cat_row_of, cat_keys = _keys_of_columns(cat)
    user_ids, item_ids, words = (list(of) for of in (users, items, tokens))
    keys = {
        "log": np.full(len(frame), state_key("log")),
        "user": _keys([("user", user) for user in user_ids])[user_of],
        "item": _keys([("item", item) for item in item_ids])[item_of],
        "user_item": keys_of_pairs("user_item", user_ids, user_of, item_ids, item_of),
        "token": _keys([("token", word) for word in words])[token],
        "pair": keys_of_pairs("pair", user_ids, user_of[row_of], words, token),
        "cat": cat_keys,
    }
    parts = [np.full((len(frame), 1), base.known)]
    base_rate = np.full(len(frame), base.at_start)
    for scope, of_scope in keys.items():
        sums, gap_s, age_s = state.of_keys(scope, of_scope)
        if scope == "log":
            parts.append(sums)
        elif scope in ("user", "item", "user_item"):
            parts.append(np.concatenate([sums, gap_s[:, None], age_s[:, None]], 1))
        elif scope == "cat":
            parts.append(cat_means(cat_row_of, sums, base_rate=base_rate))
        else:
            parts.append(token_means(scope, row_of, sums, gap_s, age_s, base_rate=base_rate))
    return np.concatenate(parts, 1)


def _keys_of_columns(cat: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the key of each value that is there, (E,) int64 each."""
    rows, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for name, column in cat.items():
        value_of, values = pd.factorize(column)  # None is -1
        rows.append(np.flatnonzero(value_of >= 0))
        keys.append(_keys([("cat", name, value) for value in values])[value_of[rows[-1]]])
    return np.concatenate(rows), np.concatenate(keys)


def _keys(ids: list[tuple[str, ...]]) -> np.ndarray:
    return np.array([state_key(*parts) for parts in ids], np.int64)
