"""The order of the steps that make a day's tables, and what they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.derived.build_sequences import EVENT_COLUMNS
from spark_jobs.derived.counted_rows import (
    COUNTED_EVENT_COLUMNS,
    COUNTED_IMPRESSION_COLUMNS,
    counted_events,
    counted_impressions,
    with_keys,
    with_label_date,
)
from spark_jobs.derived.day_scalars import day_scalars
from spark_jobs.derived.file_parts import selected
from spark_jobs.derived.impression_step import impression_step
from spark_jobs.derived.item_step import item_step
from spark_jobs.derived.log_facts import log_facts
from spark_jobs.derived.look_up_items import VERSION_COLUMNS
from spark_jobs.derived.newest_labels import newest_labels
from spark_jobs.derived.readable import readable, written_before
from spark_jobs.derived.state_of_keys import STORED_STATE, StateRows
from spark_jobs.derived.steps import Part, Runner, mapped, part_of, rows_in
from spark_jobs.derived.stored_state import Keys, Met, stored_state
from spark_jobs.derived.token_step import token_step
from spark_jobs.derived.user_step import OF_KEYS, user_step

_LOG_SCOPES = ("all", "feature", "log")
"""Scopes of the state that are of all of a log."""
_FACT_COLUMNS = ("dt", "user_id", "item_id", "shown_at", "label", "label_known_at")


class Derived(NamedTuple):
    """What is made of the day's settled rows."""

    impressions: list[Part]
    """Rows of the table, and further columns."""
    sequences: list[Part]
    """Rows of the table user_sequences without dt, and the number of `capped` behaviors."""
    state: list[Part]
    """The day's partition of the table running_sums without dt."""


def derive(run: Runner, plan: DedupPlan) -> Derived:
    """Return the day's rows of the derived tables."""
    of_log = StateRows(rows_in(_state(plan, dict.fromkeys(_LOG_SCOPES))), plan)
    met = Met("user_id", "item_id")
    facts = log_facts(met.passing(rows_in(_facts(run, plan))), plan.numbers)
    scalars = day_scalars(facts, of_log.before, day=plan.day)
    newest, state_of_newest = newest_labels(facts, of_log.before, day=plan.day)
    landed = mapped(run.settled("impressions"), partial(with_label_date, plan=plan))
    counted = [*_impressions_still_to_count(run, plan), *_events_to_count(run, plan, COUNTED_EVENT_COLUMNS)]
    shown = _is_shown(run, "item_id")
    items = run.run(
        item_step(plan, scalars),
        {
            "impressions": mapped(landed, with_keys),
            "counted": mapped(counted, with_keys),
            "items": readable(run, plan, "items", columns=VERSION_COLUMNS, first=None, filters=shown),
            "state": _state(plan, {"item": met.keys("item_id", "item")}),
        },
    )
    oldest, newest_read = plan.sequences.landed_days(plan.day)
    has_user = _is_shown(run, "user_id")
    users = run.run(
        user_step(plan, scalars.base, newest),
        {
            "impressions": items.get("impressions", []),
            "counted": items.get("counted", []),
            "history": readable(
                run, plan, "behavior_events", columns=EVENT_COLUMNS, first=oldest, last=newest_read, filters=has_user
            ),
            "state": _state(plan, dict.fromkeys(("user", "user_item", "pair"), met.keys("user_id", "user"))),
        },
    )
    tokens = run.run(
        token_step(plan),
        {
            **{scope: users.get(scope, []) for scope in OF_KEYS},
            "state": _state(plan, {scope: _keys(users.get(scope, [])) for scope in OF_KEYS}),
        },
    )
    impressions = run.run(
        impression_step(plan, scalars.base),
        {"impressions": users.get("impressions", []), **{scope: tokens.get(scope, []) for scope in OF_KEYS}},
    )
    return Derived(
        impressions=impressions.get("impressions", []),
        sequences=users.get("sequences", []),
        state=[
            part_of(of_log.after([scalars.state, state_of_newest])),
            *(part for made in (items, users, tokens) for part in made.get("state", [])),
        ],
    )


def partitions_read(plan: DedupPlan) -> dict[str, str]:
    """Return the stored partitions of the tables that grow with a log which `derive` reads."""
    oldest, _ = plan.sequences.landed_days(plan.day)
    since = _since(plan)
    return {
        "behavior_events": written_before(plan, "behavior_events", first=since and min(since, oldest)),
        "impressions": _still_to_count(plan)[0],
        "items": written_before(plan, "items", first=None),
        "running_sums": in_days(plan.state_days) if plan.state_days else "false",
    }


def _state(plan: DedupPlan, wanted: Mapping[str, Keys]) -> list[Part]:
    """Return STORED_STATE before the day of the keys of some scopes."""
    return stored_state(plan, wanted, columns=STORED_STATE.names)


def _keys(parts: Sequence[Part]) -> Keys:
    """Return the keys that rows have, while they are few."""
    met = Met("key")
    for _ in met.passing(rows_in(selected(parts, ["key"]))):
        if met.are_many("key"):
            break
    return met.keys("key")


def _facts(run: Runner, plan: DedupPlan) -> list[Part]:
    """Return all that counts, of it the few columns that scalars need."""
    landed = mapped(run.settled("impressions", _FACT_COLUMNS), partial(with_label_date, plan=plan))
    wanted, filters = _still_to_count(plan)
    earlier = run.stored("impressions", columns=COUNTED_IMPRESSION_COLUMNS, partitions=wanted, filters=filters)
    of_impressions = mapped([*landed, *earlier], partial(counted_impressions, plan=plan, asks=False))
    columns = [name for name in COUNTED_EVENT_COLUMNS if name != "text"]
    return [*of_impressions, *_events_to_count(run, plan, columns)]


def _events_to_count(run: Runner, plan: DedupPlan, columns: Sequence[str]) -> list[Part]:
    """Return what counts of events that landed since the state before D."""
    landed = readable(run, plan, "behavior_events", columns=columns, first=_since(plan))
    return mapped(landed, partial(counted_events, plan=plan))


def _impressions_still_to_count(run: Runner, plan: DedupPlan) -> list[Part]:
    """Return what counts of impressions of earlier days whose label became known, or that were shown, after the state before D."""
    wanted, filters = _still_to_count(plan)

    def stored(*columns: str) -> list[Part]:
        return run.stored("impressions", columns=columns, partitions=wanted, filters=filters)

    is_met = pc.field("behavior_key").isin(_distinct(stored("title_key"), "title_key"))
    texts = read_table(plan.tables_dir, "atomic_behaviors", filters=is_met)
    titled = mapped(stored(*COUNTED_IMPRESSION_COLUMNS, "title_key", "cat"), partial(_with_title, texts=texts))
    return mapped(titled, partial(counted_impressions, plan=plan, asks=False))


def _still_to_count(plan: DedupPlan) -> tuple[str, pc.Expression | None]:
    """Return the partitions of such impressions, and what is true of their rows."""
    wanted, filters = f"dt < '{plan.day}'", None
    if plan.excluded_days:
        wanted += f" AND NOT {in_days(plan.excluded_days)}"
    if plan.state_before is not None:
        wanted += f" AND dt > '{plan.state_before - timedelta(days=plan.landing.label_horizon_days)}'"
        filters = pc.field("label_date") > pa.scalar(plan.state_before)
    return wanted, filters


def _since(plan: DedupPlan) -> date | None:
    return plan.state_before and plan.state_before + timedelta(days=1)


def _with_title(rows: pa.Table, *, texts: pa.Table) -> pa.Table:
    place = pc.index_in(rows["title_key"], texts["behavior_key"]) if len(rows) else pa.array([], pa.int32())
    return rows.append_column("title", texts["text"].take(place))


def _is_shown(run: Runner, name: str) -> pc.Expression:
    """Return the condition that a user or item is one of the day's impressions."""
    return pc.field(name).isin(_distinct(run.settled("impressions", [name]), name))


def _distinct(parts: Iterable[Part], name: str) -> pa.Array:
    """Return the distinct values of a column of texts."""
    found = [pc.unique(rows[name]) for rows in rows_in(parts)]
    return pc.unique(pa.chunked_array(found, pa.string()))
