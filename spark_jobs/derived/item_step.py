"""Rows that share an item: what was known of it when it was shown, and its running sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US, statistics_of
from bahe_tasks.outcome_values import outcome_values
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import floats, lists, micros, nullable, present
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.counted_rows import COUNTED, counted_impressions, start_us, state_keys
from spark_jobs.derived.day_scalars import DayScalars
from spark_jobs.derived.look_up_items import VERSIONS, look_up_items, versions_read
from spark_jobs.derived.scope_sums import keyed_rows, scope_sums, state_rows
from spark_jobs.derived.state_of_keys import StateRows, base_rates, expected
from spark_jobs.derived.steps import KeyOf, Step, column, together

_KEYS = [pa.field("user_key", pa.int64()), pa.field("item_key", pa.int64())]
_MADE_BY_STEPS = ("title_key", "sequence_ends", "sums", "outcome_value")
KEYED_COUNTED = pa.schema([*COUNTED, *_KEYS])
KEYED_IMPRESSIONS = pa.schema(
    [*(field for field in arrow_schema("impressions") if field.name not in _MADE_BY_STEPS), *_KEYS]
)
"""Columns of the table impressions that are there before any step."""
OF_ITEMS = pa.schema(
    [
        *(field for field in KEYED_COUNTED if field.name in ("impression_id", "user_id", "item_id", "user_key")),
        *(field for field in KEYED_COUNTED if field.name in ("text", "cat_keys", "seen_us", "fact_us", "label")),
        ("is_event", pa.bool_()),
        ("score", pa.float64()),
        ("item_rate", pa.float64()),  # what was expected of the item
        ("item_value", pa.float64()),
        ("item_sums", pa.list_(pa.float64())),  # `ScopeSums.answers` of rows that ask
    ]
)
"""Counted rows as the step leaves them."""


def item_step(plan: DedupPlan, scalars: DayScalars) -> Step:
    """Return the step: KEYED_IMPRESSIONS, KEYED_COUNTED, VERSIONS and STORED_STATE ↦ impressions, counted and state."""
    keys: dict[str, KeyOf] = {
        "impressions": partial(column, name="item_key"),
        "counted": partial(column, name="item_key"),
        "items": _item_of_version,
        "state": partial(column, name="key"),
    }
    return Step("items", keys, partial(_work, plan=plan, scalars=scalars))


def _item_of_version(items: pa.Table) -> pa.Array:
    return state_keys("item", items["item_id"])


def _work(
    parts: Mapping[str, Iterable[pa.Table]], *, plan: DedupPlan, scalars: DayScalars
) -> Iterator[tuple[str, pa.Table]]:
    impressions = together(parts["impressions"], KEYED_IMPRESSIONS)
    versions = (together([rows], VERSIONS) for rows in parts["items"])
    shown = look_up_items(impressions, versions_read(versions, impressions))
    rows = together([counted_impressions(shown, plan, asks=True), *parts["counted"]], KEYED_COUNTED)
    key = np.asarray(pc.fill_null(rows["item_key"], -1), np.int64)
    has_item = key >= 0
    state = StateRows(parts["state"], plan, keys=key[has_item])
    base_rate = base_rates(scalars.base, rows)
    rate, value = expected("item", state.before, key, base_rate)
    score = scalars.scores(rows)
    is_event = present(rows["feature"])
    facts = {"label": floats(rows["label"]), "is_event": is_event, "score": floats(score)}
    statistics = statistics_of("item", facts, base_rate)
    asks = present(rows["impression_id"])
    keyed = keyed_rows(key[has_item], rows, statistics, np.flatnonzero(has_item), asks=asks, numbers=plan.numbers)
    sums = scope_sums("item", keyed, state.before, day=plan.day)
    yield "state", state.after([state_rows("item", sums, day=plan.day)])
    yield "impressions", _with_outcomes(shown.drop_columns("title"), rows, plan)
    width = sums.answers.shape[1]
    answers = lists(pa.array(sums.answers.ravel()), np.full(len(sums.answers), width))
    place = np.cumsum(asks) - 1  # an impression always has an item
    columns = {
        **{name: rows[name] for name in OF_ITEMS.names if name in rows.column_names},
        "is_event": pa.array(is_event),
        "score": score,
        "item_rate": pa.array(rate),
        "item_value": pa.array(value),
        "item_sums": answers.take(pa.array(place, mask=~asks)),
    }
    yield "counted", pa.table([columns[name] for name in OF_ITEMS.names], schema=OF_ITEMS)


def _with_outcomes(shown: pa.Table, rows: pa.Table, plan: DedupPlan) -> pa.Table:
    """Add outcome_value: what the day's events of the user about the item came to, from shown_at on."""
    of_day = pc.and_(pc.greater_equal(rows["happened_us"], 0), pc.less(rows["happened_us"], DAY_US))
    events = rows.filter(pc.and_(of_day, pc.and_(pc.is_valid(rows["item_key"]), pc.is_valid(rows["value"]))))
    keys = [
        np.stack([np.asarray(of[name], np.int64) for name in ("item_key", "user_key")], 1) for of in (shown, events)
    ]
    pairs = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].reshape(-1)
    found = outcome_values(
        pairs[: len(shown)],
        micros(shown["shown_at"]) - start_us(plan.day),
        pairs[len(shown) :],
        np.asarray(events["happened_us"], np.int64),
        floats(events["value"]),
    )
    return shown.append_column("outcome_value", nullable(found))
