"""What a run counts: impressions and events that landed since the state before it.

A row is a sighting (an impression, at shown_at), a fact (a label once it is known, an event once it happened), or both.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import state_key
from spark_jobs.arrow_columns import (
    Column,
    day_number,
    day_numbers,
    entries,
    lists,
    micros,
    numbered,
    present,
    repeated,
    whole,
)
from spark_jobs.dedup_plan import DedupPlan

COUNTED = pa.schema(
    [
        ("impression_id", pa.string()),  # of the day's impressions, which ask for their sums; null: does not ask
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("text", pa.string()),
        ("cat_keys", pa.list_(pa.int64())),  # of an impression's categorical values
        ("seen_us", pa.int64()),  # since the start of the day; null: is no sighting
        ("fact_us", pa.int64()),  # since the start of the day; null: is no fact
        ("label", pa.float64()),
        ("feature", pa.string()),  # null: not an event
        ("value", pa.float64()),
        ("happened_us", pa.int64()),  # of an event, since the start of the day
    ]
)
COUNTED_IMPRESSION_COLUMNS = (
    *("dt", "user_id", "item_id", "shown_at", "label", "label_known_at", "label_date", "is_late"),
)
COUNTED_EVENT_COLUMNS = ("dt", "user_id", "item_id", "feature", "occurred_at", "text", "value")


def with_label_date(rows: pa.Table, plan: DedupPlan) -> pa.Table:
    """Add label_date, the first day whose run may use the label, never before dt, and is_late: shown before dt."""
    shown_us, dt = micros(rows["shown_at"]), day_numbers(rows["dt"])
    usable_us = _known_us(rows, shown_us, plan)
    label_date = np.maximum(dt, np.floor_divide(usable_us, DAY_US)).astype(np.int32)
    return rows.append_column("label_date", pa.array(label_date).cast(pa.date32())).append_column(
        "is_late", pa.array(shown_us < dt * DAY_US)
    )


def with_keys(rows: pa.Table) -> pa.Table:
    """Add user_key and item_key, null where there is no item."""
    return rows.append_column("user_key", state_keys("user", rows["user_id"])).append_column(
        "item_key", state_keys("item", rows["item_id"])
    )


def state_keys(scope: str, names: Column) -> pa.Array:
    """Return the key of each name, null for null."""
    encoded = pc.dictionary_encode(whole(names).cast(pa.string()))
    keys = pa.array([state_key(scope, name) for name in encoded.dictionary.to_pylist()], pa.int64())
    return keys.take(encoded.indices)


def counted_impressions(rows: pa.Table, plan: DedupPlan, *, asks: bool) -> pa.Table:
    """Return those of the rows that count. `rows`: COUNTED_IMPRESSION_COLUMNS, with `title` and `cat` if they are known.

    `asks`: whether those that are not late ask for their sums; then with impression_id.
    """
    today, dt, label_date = day_number(plan.day), day_numbers(rows["dt"]), day_numbers(rows["label_date"])
    is_fact = (label_date - dt <= plan.landing.label_horizon_days) & (label_date <= today)
    is_late = np.asarray(rows["is_late"], bool)
    is_seen = ~is_late
    if plan.state_before is not None:
        is_fact &= label_date > day_number(plan.state_before)
        is_seen &= dt > day_number(plan.state_before)
    shown_us = micros(rows["shown_at"])
    # A log may say that a label was known before its impression was shown: it must not be read by that impression.
    fact_us = _counts_from(plan, np.maximum(_known_us(rows, shown_us, plan), shown_us))
    asked = pc.if_else(pa.array(is_late), None, rows["impression_id"]) if asks else None
    return _counted(
        rows,
        impression_id=asked,
        text=rows["title"] if "title" in rows.column_names else None,
        cat_keys=_cat_keys(whole(rows["cat"])) if "cat" in rows.column_names else None,
        seen_us=pa.array(shown_us - start_us(plan.day), mask=~is_seen),
        fact_us=pa.array(fact_us, mask=~is_fact),
        label=rows["label"].cast(pa.float64()),
    ).filter(pa.array(is_seen | is_fact))


def counted_events(rows: pa.Table, plan: DedupPlan) -> pa.Table:
    """Return rows of COUNTED_EVENT_COLUMNS, `text` among them if it is wanted, as COUNTED."""
    happened_us = micros(rows["occurred_at"])
    return _counted(
        rows,
        text=rows["text"] if "text" in rows.column_names else None,
        fact_us=pa.array(_counts_from(plan, happened_us)),
        happened_us=pa.array(happened_us - start_us(plan.day)),
        feature=rows["feature"],
        value=rows["value"],
    )


def start_us(day: date) -> int:
    """Return the first microsecond of a day since 1970, UTC."""
    return day_number(day) * DAY_US


def _cat_keys(cat: pa.MapArray) -> pa.ListArray:
    """Return the keys of the values of each map, those of null left out."""
    of = entries(cat)
    is_there = present(of.values)
    (name, names), (value, values) = (numbered(part.filter(pa.array(is_there))) for part in (of.keys, of.values))
    distinct, place = np.unique(name * max(len(values), 1) + value, return_inverse=True)
    parts = zip(*(part.tolist() for part in np.divmod(distinct, max(len(values), 1))), strict=True)
    keys = np.array([state_key("cat", names[n], values[v]) for n, v in parts], np.int64)
    return lists(pa.array(keys[place.reshape(-1)]), np.bincount(of.row[is_there], minlength=len(cat)))


def _known_us(rows: pa.Table, shown_us: np.ndarray, plan: DedupPlan) -> np.ndarray:
    delayed_us = shown_us + plan.landing.label_delay_s * 1_000_000
    known = rows["label_known_at"]
    return np.where(present(known), micros(known), delayed_us)


def _counts_from(plan: DedupPlan, time_us: np.ndarray) -> np.ndarray:
    """Return when a fact begins to count, from the start of the day; with `as_of: day_start` at the day's last microsecond, also
    one that came late: the state of the evening before has none of the day's."""
    if plan.numbers.as_of == "impression":
        return time_us - start_us(plan.day)
    return np.full(len(time_us), DAY_US - 1)


def _counted(rows: pa.Table, **columns: Column | None) -> pa.Table:
    """Return COUNTED, with user_key and item_key where `rows` has them; a column that is nowhere is null."""
    kept = [pa.field(name, pa.int64()) for name in ("user_key", "item_key") if name in rows.column_names]
    of = {name: rows[name] for name in ("user_id", "item_id", *(field.name for field in kept))} | columns
    found = {field.name: of.get(field.name) for field in [*COUNTED, *kept]}
    arrays = [
        repeated(None, field.type, len(rows)) if found[field.name] is None else found[field.name]
        for field in [*COUNTED, *kept]
    ]
    return pa.table(arrays, schema=pa.schema([*COUNTED, *kept]))
