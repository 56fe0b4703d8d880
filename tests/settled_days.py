"""Settled rows of handmade days, in memory or as Spark's tasks leave them, and what is made of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random

import pyarrow as pa

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions
from spark_jobs.arrow_files import write_rows
from spark_jobs.derive_few import derive_few
from spark_jobs.derived.file_parts import part_of_file
from spark_jobs.derived.steps import rows_in

FIRST = date(2024, 3, 14)
WORDS = ["blue", "moon", "mer", "sky", "the", "The", "Été", "日本", "a_b", "!!", "12"]
DERIVED = ("title_key", "sequence_ends", "sums", "outcome_value", "label_date", "is_late")


def day_of_rows(random: Random, day: date, *, impressions: int, events: int, items: int) -> dict[str, pa.Table]:
    """Settled rows of a day: some late, some without an item, with maps of several entries, and times that are equal."""

    def at() -> datetime:
        late = timedelta(days=random.choice([0] * 6 + [1, 2]))
        hour = timedelta(hours=random.choice([0, 7, 7, 23]), microseconds=random.choice([0, 1]))
        return datetime(day.year, day.month, day.day, tzinfo=UTC) + hour - late

    def some(of: dict) -> dict:
        return {key: of[key] for key in random.sample(sorted(of), random.randrange(len(of) + 1))}

    def text(most: int) -> str:
        return " ".join(random.choice(WORDS) for _ in range(random.randrange(1, most))) + " x"

    happened = {
        (
            f"u{random.randrange(6)}",
            random.choice("fg"),
            at(),
            text(3),
            random.choice([None, f"i{random.randrange(8)}"]),
        )
        for _ in range(events)
    }
    rows = {
        "behavior_events": [
            {"user_id": user, "feature": feature, "occurred_at": time, "text": words, "behavior_key": behavior_key(words),
             "item_id": item, "value": random.choice([None, 0.5, 4.0, -3.0])}
            for user, feature, time, words, item in sorted(happened, key=str)
        ],
        "impressions": [
            {"impression_id": f"{day}-{n}", "user_id": f"u{random.randrange(6)}", "item_id": f"i{random.randrange(10)}",
             "shown_at": (shown := at()), "label": random.randrange(2), "labels": {},
             "label_known_at": random.choice([None, None, shown + timedelta(days=random.randrange(-1, 4))]),
             "cat": some({"c": "own", "d": "x"}), "num": some({"n": 1.5, "m": 2.0})}
            for n in range(impressions)
        ],
        "items": [
            {"item_id": f"i{random.randrange(8)}", "updated_at": at(), "title": (title := text(5)),
             "title_key": behavior_key(title), "cat": some({"c": "i", "b": "q", "a": "r"}), "num": some({"n": random.random(), "o": 7.0})}
            for _ in range(items)
        ],
    }  # fmt: skip
    tables = {}
    for source, of_source in rows.items():
        fields = [f for f in arrow_schema(source) if source != "impressions" or f.name not in DERIVED]
        tables[source] = pa.Table.from_pylist([{**row, "dt": day} for row in of_source], schema=pa.schema(fields))
    return tables


def files_of(kept: dict[str, pa.Table], folder) -> dict:
    """Write settled rows as Spark's tasks do, a few in a file."""
    parts = {}
    for source, rows in kept.items():
        parts[source] = []
        for start in range(0, len(rows), 7):
            file = folder / f"{source}-{start}.arrow"
            write_rows(str(file), coded(rows.slice(start, 7)))
            parts[source].append(part_of_file(str(file), file.stat().st_size))
    return parts


def coded(rows: pa.Table) -> pa.Table:
    """Hold texts and keys by dictionary, as settled rows do."""
    for name in {"text", "behavior_key", "title", "title_key"} & set(rows.column_names):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, name, rows[name].combine_chunks().dictionary_encode())
    return rows


def sorted_rows(parts, columns) -> list[str]:
    return sorted(repr(row) for rows in rows_in(parts) for row in rows.select(columns).to_pylist())


def write(plan, kept) -> None:
    tables, _ = derive_few(plan, kept, arrow_schema("quarantine").empty_table())
    append_rows(plan.tables_dir, "atomic_behaviors", tables["atomic_behaviors"], partitions={})
    for name in ("behavior_events", "items", "impressions", "user_sequences", "running_sums"):
        days = plan.days_of(name) if name in kept else [plan.day]
        written = " OR ".join(f"dt = '{day}'" for day in sorted(days))
        replace_partitions(plan.tables_dir, name, tables[name], predicate=written, partitions={})
