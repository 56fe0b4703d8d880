"""Steps run for buckets make what they make when run once, however rows are shared out and whatever a day lacks.

Spark is played by a loop: it pickles tasks and runs them in any order, and no more.
"""

from __future__ import annotations

import pickle
from datetime import timedelta
from random import Random

import cloudpickle
import pyarrow as pa
import pytest
from settled_days import FIRST, day_of_rows, files_of, sorted_rows, write

from bahe_tasks.config import NumbersConfig, SequencesConfig
from bahe_tasks.state_cover import state_cover
from spark_jobs import arrow_files, exchange, shares
from spark_jobs.arrow_files import write_rows
from spark_jobs.derived import run_in_buckets
from spark_jobs.derived.derive import derive
from spark_jobs.derived.file_parts import part_of_file
from spark_jobs.derived.met_behaviors import MET, met_behaviors
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.run_in_buckets import InBuckets
from spark_jobs.derived.steps import rows_in


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


def test_files_of_the_state_lie_in_order_however_their_day_is_run(plan_of, landing, tmp_path):
    random, recorded = Random(2), []
    for n in range(3):
        day = FIRST + timedelta(days=n)
        kept = day_of_rows(random, day, impressions=30, events=40, items=6)
        plan = plan_of(landing, tmp_path / "tables", day, state_days=state_cover(day, recorded=recorded))
        folder = tmp_path / str(day)
        folder.mkdir()
        settled = files_of(kept, folder)
        many = InBuckets(None, tables_dir=plan.tables_dir, settled=settled, folder=str(folder), buckets=5)
        for run in (Here(plan.tables_dir, kept), many):
            for scope in ("user", "pair", "user_item", "item"):
                of_scope = [
                    row
                    for rows in rows_in(derive(run, plan).state)
                    for row in rows.to_pylist()
                    if row["scope"] == scope
                ]
                places = [(row["owner"] or 0, row["key"]) for row in of_scope]
                assert len(places) > 1
                assert places == sorted(places), (day, scope)
        write(plan, kept)
        recorded.append(day)


def test_keys_that_are_null_are_dealt_out():
    keys = pa.chunked_array([pa.array([None, None, None, 7 << 56], pa.int64())])
    assert run_in_buckets._bucket_of(keys, 3).tolist() == [0, 1, 2, 1]


def test_parts_and_conditions_can_be_pickled(tmp_path):
    file = tmp_path / "rows.arrow"
    write_rows(str(file), pa.table({"a": [1, 2]}))
    part = pickle.loads(pickle.dumps(part_of_file(str(file), 1)))
    assert [rows.to_pydict() for rows in part.read()] == [{"a": [1, 2]}]
