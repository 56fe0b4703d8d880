"""Every table of a day out of its settled rows, in the driver: `spark_jobs.dedup_behaviors` for a day of few rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_batches, read_table
from spark_jobs.arrow_columns import day_numbers, micros, present, repeated
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.few_rows.build_sequences import EVENT_COLUMNS, build_sequences, events_read
from spark_jobs.few_rows.counted_rows import COUNTED_EVENT_COLUMNS, COUNTED_IMPRESSION_COLUMNS, counted_rows
from spark_jobs.few_rows.gather_behaviors import gather_behaviors
from spark_jobs.few_rows.look_up_items import look_up_items
from spark_jobs.few_rows.readable import readable
from spark_jobs.few_rows.running_sums import running_sums
from spark_jobs.write_day import DayTables, DerivedCounts


def derive(plan: DedupPlan, kept: Mapping[str, pa.Table], quarantined: pa.Table) -> tuple[DayTables, DerivedCounts]:
    """Return the rows to write and what is counted of them. `kept`: the settled rows of each source."""
    events, items = kept["behavior_events"], kept["items"]
    impressions = kept["impressions"].sort_by("impression_id")  # the order in which sums are added must not be Spark's
    today = look_up_items(plan, _with_label_date(plan, impressions), items)
    oldest = plan.day - timedelta(days=plan.sequences.history_days - 1)
    of_users = pc.field("user_id").isin(pc.unique(today["user_id"]))
    parts = readable(plan, "behavior_events", events, columns=EVENT_COLUMNS, first=oldest, filters=of_users)
    history = events_read(parts, today, sequences=plan.sequences)
    sequences, ends = build_sequences(history, today, sequences=plan.sequences)
    today = today.append_column("sequence_ends", ends)
    of_today = events.filter(pc.field("dt") == pa.scalar(plan.day))
    behaviors = gather_behaviors(
        plan,
        landed=[(events, "behavior_key", "text"), (items, "title_key", "title")],
        needed=chain(
            [of_today["behavior_key"], pc.list_flatten(sequences["behavior_keys"]), today["title_key"]],
            _keys_of_window(plan, "user_sequences", "behavior_keys"),
            _keys_of_window(plan, "impressions", "title_key"),
        ),
    )
    since = plan.state_before and plan.state_before + timedelta(days=1)
    counted = counted_rows(
        plan,
        today=today.select(COUNTED_IMPRESSION_COLUMNS),
        earlier=_impressions_still_to_count(plan),
        events=pa.concat_tables(readable(plan, "behavior_events", events, columns=COUNTED_EVENT_COLUMNS, first=since)),
    )
    sums = running_sums(plan, counted, num_impressions=len(today))
    tables: dict[str, pa.Table] = {
        "atomic_behaviors": _behaviors(behaviors.unwritten),
        "new_behaviors": _behaviors(behaviors.new).append_column(
            "encoder_version", repeated(plan.encoder_version, pa.string(), len(behaviors.new))
        ),
        "user_sequences": sequences,
        "impressions": today.append_column("sums", sums.of_impressions),
        "running_sums": sums.state,
        "behavior_events": events,
        "items": items,
        "quarantine": quarantined,
    }
    counts = DerivedCounts(
        needed=len(behaviors.needed),
        new=len(behaviors.new),
        without_text=sum(text is None for text in behaviors.new.values()),
        sequences=len(sequences),
        capped=pc.sum(sequences["capped"]).as_py() or 0,
    )
    return {name: _fitted(plan, name, rows) for name, rows in tables.items()}, counts


def _with_label_date(plan: DedupPlan, impressions: pa.Table) -> pa.Table:
    """Add label_date, the first day whose run may use the label, never before dt, and is_late: shown before dt."""
    shown_us, dt = micros(impressions["shown_at"]), day_numbers(impressions["dt"])
    delayed_us = shown_us + plan.landing.label_delay_s * 1_000_000
    known = impressions["label_known_at"]
    usable_us = np.where(present(known), micros(known), delayed_us)
    label_date = np.maximum(dt, np.floor_divide(usable_us, DAY_US)).astype(np.int32)
    return impressions.append_column("label_date", pa.array(label_date).cast(pa.date32())).append_column(
        "is_late", pa.array(shown_us < dt * DAY_US)
    )


def _keys_of_window(plan: DedupPlan, name: str, column: str) -> Iterator[pa.Array]:
    """Yield the keys in a column of the training and gate windows' earlier days, some thousand rows at a time."""
    wanted = f"dt >= '{plan.needed_from}' AND dt < '{plan.day}'"
    if plan.excluded_days:
        wanted += f" AND NOT {in_days(plan.excluded_days)}"
    for batch in read_batches(plan.tables_dir, name, columns=(column,), partitions=wanted):
        keys = batch[column]
        yield pc.list_flatten(keys) if pa.types.is_list(keys.type) else keys


def _impressions_still_to_count(plan: DedupPlan) -> pa.Table:
    """Return impressions of earlier days, with title, whose label became known, or that were shown, after the state before D."""
    columns = [name for name in COUNTED_IMPRESSION_COLUMNS if name != "title"]
    wanted, filters = f"dt < '{plan.day}'", None
    if plan.excluded_days:
        wanted += f" AND NOT {in_days(plan.excluded_days)}"
    if plan.state_before is not None:
        wanted += f" AND dt > '{plan.state_before - timedelta(days=plan.landing.label_horizon_days)}'"
        filters = pc.field("label_date") > pa.scalar(plan.state_before)
    rows = read_table(
        plan.tables_dir, "impressions", columns=[*columns, "title_key"], partitions=wanted, filters=filters
    )
    keys = pc.unique(rows["title_key"])
    texts = read_table(plan.tables_dir, "atomic_behaviors", filters=pc.field("behavior_key").isin(keys))
    place = pc.index_in(rows["title_key"], texts["behavior_key"]) if len(rows) else pa.array([], pa.int32())
    return rows.append_column("title", texts["text"].take(place)).select(COUNTED_IMPRESSION_COLUMNS)


def _behaviors(texts: Mapping[str, str | None]) -> pa.Table:
    return pa.table(
        {"behavior_key": pa.array(list(texts), pa.string()), "text": pa.array(list(texts.values()), pa.string())}
    )


def _fitted(plan: DedupPlan, name: str, rows: pa.Table) -> pa.Table:
    """Return rows with the columns of their table; of derived tables all are the day's."""
    if "dt" in dict(TABLES[name].columns) and "dt" not in rows.column_names:
        rows = rows.append_column("dt", repeated(plan.day, pa.date32(), len(rows)))
    return rows.select(TABLES[name].column_names).cast(arrow_schema(name))
