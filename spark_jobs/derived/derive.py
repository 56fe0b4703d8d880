"""The order of the steps that make a day's tables, and what they read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
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
from spark_jobs.derived.day_scalars import SCALAR_SCOPES, day_scalars
from spark_jobs.derived.impression_step import impression_step
from spark_jobs.derived.item_step import item_step
from spark_jobs.derived.look_up_items import VERSION_COLUMNS
from spark_jobs.derived.readable import readable
from spark_jobs.derived.state_of_keys import STORED_STATE, StateRows
from spark_jobs.derived.steps import Part, Runner, mapped, part_of, rows_in
from spark_jobs.derived.token_step import token_step
from spark_jobs.derived.user_step import user_step


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
    landed = run.held(mapped(run.settled("impressions"), partial(with_label_date, plan=plan)))
    earlier = _impressions_still_to_count(run, plan)
    since = plan.state_before and plan.state_before + timedelta(days=1)
    landed_since = readable(run, plan, "behavior_events", columns=COUNTED_EVENT_COLUMNS, first=since)
    counted = run.held([*earlier, *mapped(landed_since, partial(counted_events, plan=plan))])
    days = in_days(plan.state_days) if plan.state_days else "false"
    state = run.held(run.stored("running_sums", columns=STORED_STATE.names, partitions=days))

    of_log = StateRows(rows_in(_of_scopes(state, SCALAR_SCOPES)), plan)
    scalars = day_scalars(rows_in([*_labels(run, plan), *counted]), of_log.before, day=plan.day)

    versions = readable(run, plan, "items", columns=VERSION_COLUMNS, first=None)
    items = run.run(
        item_step(plan, scalars),
        {
            "impressions": mapped(landed, with_keys),
            "counted": mapped(counted, with_keys),
            "items": _only(versions, "item_id", run),
            "state": _of_scopes(state, ["item"]),
        },
    )
    oldest = plan.day - timedelta(days=plan.sequences.history_days - 1)
    events = readable(run, plan, "behavior_events", columns=EVENT_COLUMNS, first=oldest)
    users = run.run(
        user_step(plan, scalars.base_rate),
        {
            "impressions": items.get("impressions", []),
            "counted": items.get("counted", []),
            "history": _only(events, "user_id", run),
            "state": _of_scopes(state, ["user", "pair"]),
        },
    )
    tokens = run.run(token_step(plan), {"tokens": users.get("tokens", []), "state": _of_scopes(state, ["token"])})
    impressions = run.run(
        impression_step(scalars.base_rate),
        {"impressions": users.get("impressions", []), "answers": tokens.get("answers", [])},
    )
    return Derived(
        impressions=impressions.get("impressions", []),
        sequences=users.get("sequences", []),
        state=[
            part_of(of_log.after([scalars.state])),
            *(part for made in (items, users, tokens) for part in made.get("state", [])),
        ],
    )


def _labels(run: Runner, plan: DedupPlan) -> list[Part]:
    """Return what counts of the day's impressions, of the few columns that scalars need."""
    columns = [name for name in COUNTED_IMPRESSION_COLUMNS if name not in ("label_date", "is_late")]
    landed = mapped(run.settled("impressions", columns), partial(with_label_date, plan=plan))
    return mapped(landed, partial(counted_impressions, plan=plan, asks=False))


def _impressions_still_to_count(run: Runner, plan: DedupPlan) -> list[Part]:
    """Return what counts of impressions of earlier days whose label became known, or that were shown, after the state before D."""
    wanted, filters = f"dt < '{plan.day}'", None
    if plan.excluded_days:
        wanted += f" AND NOT {in_days(plan.excluded_days)}"
    if plan.state_before is not None:
        wanted += f" AND dt > '{plan.state_before - timedelta(days=plan.landing.label_horizon_days)}'"
        filters = pc.field("label_date") > pa.scalar(plan.state_before)
    columns = [*COUNTED_IMPRESSION_COLUMNS, "title_key"]
    rows = run.held(run.stored("impressions", columns=columns, partitions=wanted, filters=filters))
    keys = _distinct(rows, "title_key")
    texts = read_table(plan.tables_dir, "atomic_behaviors", filters=pc.field("behavior_key").isin(keys))
    titled = mapped(rows, partial(_with_title, texts=texts))
    return mapped(titled, partial(counted_impressions, plan=plan, asks=False))


def _with_title(rows: pa.Table, *, texts: pa.Table) -> pa.Table:
    place = pc.index_in(rows["title_key"], texts["behavior_key"]) if len(rows) else pa.array([], pa.int32())
    return rows.append_column("title", texts["text"].take(place))


def _of_scopes(state: Sequence[Part], scopes: Collection[str]) -> list[Part]:
    return mapped(state, partial(_where, condition=pc.field("scope").isin(list(scopes))))


def _only(parts: Iterable[Part], name: str, run: Runner) -> list[Part]:
    """Return the rows whose column `name` is that of one of the day's impressions."""
    shown = _distinct(run.settled("impressions", [name]), name)
    return mapped(parts, partial(_where, condition=pc.field(name).isin(shown)))


def _where(rows: pa.Table, *, condition: pc.Expression) -> pa.Table:
    return rows.filter(condition)


def _distinct(parts: Iterable[Part], name: str) -> pa.Array:
    """Return the distinct values of a column of texts."""
    found = [pc.unique(rows[name]) for rows in rows_in(parts)]
    return pc.unique(pa.chunked_array(found, pa.string()))
