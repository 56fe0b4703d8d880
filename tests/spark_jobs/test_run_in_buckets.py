"""Steps run for buckets make what they make when run once, however rows are shared out and whatever a day lacks.

Spark is played by a loop: it pickles tasks and runs them in any order, and no more.
"""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta
from random import Random

import cloudpickle
import pyarrow as pa
import pytest

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import NumbersConfig, SequencesConfig
from bahe_tasks.state_cover import state_cover
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions
from spark_jobs import arrow_files, exchange, shares
from spark_jobs.arrow_files import write_rows
from spark_jobs.derive_few import derive_few
from spark_jobs.derived import run_in_buckets
from spark_jobs.derived.derive import derive
from spark_jobs.derived.file_parts import part_of_file
from spark_jobs.derived.met_behaviors import MET, met_behaviors
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.run_in_buckets import InBuckets
from spark_jobs.derived.steps import rows_in

FIRST = date(2024, 3, 14)
WORDS = ["blue", "moon", "mer", "sky", "the", "The", "Été", "日本", "a_b", "!!", "12"]
DERIVED = ("title_key", "sequence_ends", "sums", "outcome_value", "label_date", "is_late")


class TaskContext:
    """Of Spark's the one number that is asked for: each attempt has another."""

    attempts = 0

    @classmethod
    def get(cls):
        return cls()

    def taskAttemptId(self):  # Spark's name
        TaskContext.attempts += 1
        return TaskContext.attempts


def run_in_a_loop(_, task, count, ddl):
    """Do what Spark does: run tasks in any order, some of them twice, as after one that was lost."""
    run_in_a_loop.most = max(run_in_a_loop.most, count)
    task, found = cloudpickle.loads(cloudpickle.dumps(task)), []
    tasks = [list(range(first, min(first + 3, count))) for first in range(0, count, 3)]
    Random(3).shuffle(tasks)
    for numbers in tasks:
        list(task(numbers)) if numbers[0] % 2 else None
        found += list(task(numbers))
    names = [column.split()[0] for column in ddl.split(", ")]
    return [dict(zip(names, row, strict=True)) for row in found]


run_in_a_loop.most = 0


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several shares, and several batches a file."""
    monkeypatch.setattr(exchange, "TaskContext", TaskContext)
    monkeypatch.setattr(exchange, "run_in_tasks", run_in_a_loop)
    for module in (arrow_files, run_in_buckets):
        monkeypatch.setattr(module, "ROWS_A_BATCH", 5)
    monkeypatch.setattr(shares, "_BYTES_A_SHARE", 200_000)


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


DAYS = {
    "some of everything": [(20, 30, 6)] * 3,
    "no impressions, no events, nothing": [(0, 10, 2), (10, 0, 0), (0, 0, 0), (5, 5, 1)],
    "a day that is taken in by the next": [(12, 20, 4), None, (12, 20, 4), (12, 20, 4)],
    "states that are merged": [(8, 8, 2)] * 6,
}


@pytest.mark.parametrize("days", DAYS.values(), ids=DAYS)
@pytest.mark.parametrize(("as_of", "refused"), [("impression", None), ("day_start", FIRST + timedelta(days=1))])
def test_buckets_make_what_one_run_makes(plan_of, landing, tmp_path, days, as_of, refused):
    random, recorded = Random(str(days)), []
    for n, sizes in enumerate(days):
        if sizes is None:
            continue
        day, caught_up = FIRST + timedelta(days=n), []
        kept = day_of_rows(random, day, **dict(zip(("impressions", "events", "items"), sizes, strict=True)))
        if n and days[n - 1] is None:
            caught_up = [day - timedelta(days=1)]
            more = day_of_rows(random, caught_up[0], impressions=0, events=10, items=3)
            kept |= {source: pa.concat_tables([kept[source], more[source]]) for source in ("behavior_events", "items")}
        excluded = frozenset({refused} if refused and refused < day else ())
        plan = plan_of(
            landing,
            tmp_path / "tables",
            day,
            catch_up=dict.fromkeys(("behavior_events", "items"), caught_up),
            excluded_days=excluded,
            sequences=SequencesConfig(max_behaviors_per_sequence=3, max_events_per_sequence=5),
            numbers=NumbersConfig(as_of=as_of),
            state_days=state_cover(day, recorded=recorded, excluded=excluded),
        )
        once = Here(plan.tables_dir, kept)
        here = derive(once, plan)
        met = sorted_rows(met_behaviors(once, plan, here), MET.names)
        for buckets in (1, 7):
            folder = tmp_path / f"{day}-{buckets}"
            folder.mkdir()
            settled = files_of(kept, folder)
            run = InBuckets(None, tables_dir=plan.tables_dir, settled=settled, folder=str(folder), buckets=buckets)
            many = derive(run, plan)
            for name, of_one, of_many in zip(here._fields, here, many, strict=True):
                columns = next(rows_in(of_one)).column_names
                assert sorted_rows(of_many, columns) == sorted_rows(of_one, columns), (day, buckets, name)
            assert sorted_rows(met_behaviors(run, plan, many), MET.names) == met
        write(plan, kept)
        recorded.append(day)
    assert run_in_a_loop.most > 1


def write(plan, kept) -> None:
    tables, _ = derive_few(plan, kept, arrow_schema("quarantine").empty_table())
    append_rows(plan.tables_dir, "atomic_behaviors", tables["atomic_behaviors"], partitions={})
    for name in ("behavior_events", "items", "impressions", "user_sequences", "running_sums"):
        days = plan.days_of(name) if name in kept else [plan.day]
        written = " OR ".join(f"dt = '{day}'" for day in sorted(days))
        replace_partitions(plan.tables_dir, name, tables[name], predicate=written, partitions={})


def test_keys_that_are_null_are_dealt_out():
    keys = pa.chunked_array([pa.array([None, None, None, 7], pa.int64())])
    assert run_in_buckets._bucket_of(keys, 3).tolist() == [0, 1, 2, 1]


def test_parts_and_conditions_can_be_pickled(tmp_path):
    file = tmp_path / "rows.arrow"
    write_rows(str(file), pa.table({"a": [1, 2]}))
    part = pickle.loads(pickle.dumps(part_of_file(str(file), 1)))
    assert [rows.to_pydict() for rows in part.read()] == [{"a": [1, 2]}]
