"""What a run counts: `spark_jobs.counted_rows` without Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import state_key, title_tokens
from spark_jobs.arrow_columns import day_number, day_numbers, floats, micros, numbered, present, repeated
from spark_jobs.counted_rows import start_us
from spark_jobs.dedup_plan import DedupPlan

COUNTED_IMPRESSION_COLUMNS = (
    *("dt", "user_id", "item_id", "shown_at", "label", "label_known_at", "label_date", "is_late", "title"),
)
COUNTED_EVENT_COLUMNS = ("dt", "user_id", "item_id", "feature", "occurred_at", "text", "value")


@dataclass(frozen=True)
class CountedRows:
    """R rows in an order that does not depend on how they were read; times are µs since the start of the day."""

    asked: np.ndarray  # (R,) int64, the impression of the day that asks for its sums, -1 = none
    is_seen: np.ndarray  # (R,) bool
    seen_us: np.ndarray  # (R,) int64
    is_fact: np.ndarray  # (R,) bool
    fact_us: np.ndarray  # (R,) int64
    label: np.ndarray  # (R,) float64, NaN = not a label
    value: np.ndarray  # (R,) float64, NaN = none
    feature: np.ndarray  # (R,) int64, place among `features`, -1 = not an event
    features: list[str]
    keys: dict[str, tuple[np.ndarray, np.ndarray]]  # scope → row and key of each (row, key), int64 both
    owners: dict[int, int]  # key of a pair → key of its user


def counted_rows(plan: DedupPlan, *, today: pa.Table, earlier: pa.Table, events: pa.Table) -> CountedRows:
    """Return the rows of COUNTED_IMPRESSION_COLUMNS and COUNTED_EVENT_COLUMNS that count, with the keys they have.

    `today`: all impressions of the day; `earlier`: those of other days; `events`: those that landed since the state.
    """
    parts = [
        _impressions(plan, today, asked=np.where(today["is_late"], -1, np.arange(len(today)))),
        _impressions(plan, earlier, asked=np.full(len(earlier), -1)),
        _events(plan, events),
    ]
    rows = pa.concat_tables(parts)
    rows = rows.filter(pa.array(np.asarray(rows["is_seen"]) | np.asarray(rows["is_fact"])))
    user, users = numbered(rows["user_id"])
    item, items = numbered(rows["item_id"])
    feature, features = numbered(rows["feature"])
    text, texts = numbered(rows["text"])
    columns = {name: np.asarray(rows[name]) for name in ("asked", "is_seen", "seen_us", "is_fact", "fact_us")}
    label, value = floats(rows["label"]), floats(rows["value"])
    by = (text, value, label, feature, item, user, columns["seen_us"], columns["fact_us"], columns["asked"])
    order = np.lexsort(by)
    keys, owners = _keys(user[order], users, item[order], items, text[order], texts)
    return CountedRows(
        **{name: column[order] for name, column in columns.items()},
        label=label[order],
        value=value[order],
        feature=feature[order],
        features=features,
        keys=keys,
        owners=owners,
    )


def _keys(
    user: np.ndarray, users: list[str], item: np.ndarray, items: list[str], text: np.ndarray, texts: Sequence[str]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[int, int]]:
    tokens_of = [title_tokens(words) for words in texts]
    number_of = {token: n for n, token in enumerate(dict.fromkeys(t for tokens in tokens_of for t in tokens))}
    counts = np.array([*map(len, tokens_of), 0], np.int64)  # the last is that of rows without a text
    starts = np.cumsum(counts) - counts
    flat = np.array([number_of[token] for tokens in tokens_of for token in tokens], np.int64)
    of_row = counts[text]
    row = np.repeat(np.arange(len(user)), of_row)
    within = np.arange(len(row)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    token = flat[np.repeat(starts[text], of_row) + within] if len(flat) else np.zeros(0, np.int64)
    user_keys, item_keys, token_keys = (
        np.array([state_key(scope, name) for name in names], np.int64)
        for scope, names in (("user", users), ("item", items), ("token", list(number_of)))
    )
    distinct, pair = np.unique(user[row] * max(len(number_of), 1) + token, return_inverse=True)
    owner, owned = np.divmod(distinct, max(len(number_of), 1))
    words = list(number_of)
    pair_keys = np.array(
        [state_key("pair", users[u], words[t]) for u, t in zip(owner.tolist(), owned.tolist(), strict=True)], np.int64
    )
    has_item = np.flatnonzero(item >= 0)
    keys = {
        "user": (np.arange(len(user)), user_keys[user]),
        "item": (has_item, item_keys[item[has_item]]),
        "token": (row, token_keys[token]),
        "pair": (row, pair_keys[pair.reshape(-1)]),
    }
    return keys, dict(zip(pair_keys.tolist(), user_keys[owner].tolist(), strict=True))


def _impressions(plan: DedupPlan, rows: pa.Table, *, asked: np.ndarray) -> pa.Table:
    today, dt, label_date = day_number(plan.day), day_numbers(rows["dt"]), day_numbers(rows["label_date"])
    is_fact = (label_date - dt <= plan.landing.label_horizon_days) & (label_date <= today)
    is_seen = ~np.asarray(rows["is_late"], bool)
    if plan.state_before is not None:
        is_fact &= label_date > day_number(plan.state_before)
        is_seen &= dt > day_number(plan.state_before)
    shown_us = micros(rows["shown_at"])
    delayed_us = shown_us + plan.landing.label_delay_s * 1_000_000
    known_us = np.where(present(rows["label_known_at"]), micros(rows["label_known_at"]), delayed_us)
    # A log may say that a label was known before its impression was shown: it must not be read by that impression.
    fact_us = _counts_from(plan, np.maximum(known_us, shown_us))
    return _table(
        rows,
        text=rows["title"],
        asked=asked,
        is_seen=is_seen,
        seen_us=shown_us - start_us(plan.day),
        is_fact=is_fact,
        fact_us=fact_us,
        label=rows["label"].cast(pa.float64()),
        feature=repeated(None, pa.string(), len(rows)),
        value=repeated(None, pa.float64(), len(rows)),
    )


def _events(plan: DedupPlan, rows: pa.Table) -> pa.Table:
    return _table(
        rows,
        text=rows["text"],
        asked=np.full(len(rows), -1),
        is_seen=np.zeros(len(rows), bool),
        seen_us=np.zeros(len(rows), np.int64),
        is_fact=np.ones(len(rows), bool),
        fact_us=_counts_from(plan, micros(rows["occurred_at"])),
        label=repeated(None, pa.float64(), len(rows)),
        feature=rows["feature"],
        value=rows["value"],
    )


def _table(rows: pa.Table, **columns: pa.ChunkedArray | pa.Array | np.ndarray) -> pa.Table:
    return pa.table({"user_id": rows["user_id"], "item_id": rows["item_id"], **columns})


def _counts_from(plan: DedupPlan, time_us: np.ndarray) -> np.ndarray:
    """Return when facts begin to count; with `as_of: day_start` at the last microsecond of their day."""
    time_us = time_us - start_us(plan.day)
    if plan.numbers.as_of == "impression":
        return time_us
    return time_us - np.mod(time_us, DAY_US) + (DAY_US - 1)
