"""Days that are hard on the job: one user with a large part of the events, a title of 1 MB, one row, many tiny files."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import SequencesConfig
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs import settle_few
from spark_jobs.dedup_behaviors import dedup_behaviors
from spark_jobs.landed.sources import settle_rows
from spark_jobs.landing_files import UnreadableFileError, heads_of
from spark_jobs.tasks import run_in_tasks

DAY = date(2024, 3, 10)
pytestmark = pytest.mark.spark


def event(user: str, second: int, text: str) -> dict:
    return {
        "user_id": user,
        "feature": "bills",
        "occurred_at": f"{DAY}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z",
        "text": text,
    }


def impression(number: int, user: str, item: str = "i") -> dict:
    return {
        "impression_id": f"x{number}",
        "user_id": user,
        "item_id": item,
        "shown_at": f"{DAY}T23:00:00Z",
        "label": number % 2,
    }


def rows_of(tables_dir, name):
    return read_table(tables_dir, name).to_pylist()


def test_a_user_with_a_twentieth_of_all_events_has_the_newest_of_them_as_history(spark, landing, plan_of, tmp_path):
    events = [event(f"u{n % 190}", n, f"text {n}") for n in range(3800)]
    landing.rows("behavior_events", DAY, [*events, *[event("heavy", n, f"text {n}") for n in range(200)]])
    landing.rows("impressions", DAY, [impression(1, "heavy"), impression(2, "u0")])
    sequences = SequencesConfig(max_behaviors_per_sequence=10, max_events_per_sequence=20)
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path, DAY, sequences=sequences, is_small=False))
    assert counts["behavior_events"]["rows"] == 4000
    found = {row["user_id"]: row["behavior_keys"] for row in rows_of(tmp_path, "user_sequences")}
    assert found["heavy"] == [behavior_key(f"text {n}") for n in range(190, 200)]
    assert len(found["u0"]) == 10


@pytest.mark.parametrize("is_small", [True, False])
def test_a_title_of_a_megabyte_is_a_behavior_like_any_other(spark, landing, plan_of, tmp_path, is_small):
    title = "long " * 200_000
    item = {"item_id": "i", "title": title, "updated_at": f"{DAY}T01:00:00Z"}
    landing.rows("items", DAY, [item, {**item, "item_id": "odd", "title": "e\u0301" + title}], form="parquet")
    landing.rows("impressions", DAY, [impression(1, "u"), impression(2, "u", item="odd")])
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path, DAY, is_small=is_small))
    assert counts["new_behaviors"] == 2
    keys = {row["item_id"]: row["title_key"] for row in rows_of(tmp_path, "impressions")}
    assert keys == {"i": behavior_key(title), "odd": behavior_key("e\u0301" + title)}
    assert {len(row["text"]) for row in rows_of(tmp_path, "new_behaviors")} == {999_999, 1_000_000}


@pytest.mark.parametrize("is_small", [True, False])
def test_a_day_of_one_event_is_a_day(spark, landing, plan_of, tmp_path, is_small):
    landing.rows("behavior_events", DAY, [event("u", 1, "alone")], form="parquet")
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path, DAY, is_small=is_small))
    assert (counts["behavior_events"]["rows"], counts["new_behaviors"], counts["sequences"]) == (1, 1, 0)
    assert [row["text"] for row in rows_of(tmp_path, "atomic_behaviors")] == ["alone"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_hundreds_of_tiny_files_are_one_day(spark, landing, plan_of, tmp_path, form):
    for n in range(300):
        landing.rows("behavior_events", DAY, [event("u", n, f"text {n % 7}")], form=form, name=f"part-{n}")
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path, DAY))
    assert counts["behavior_events"]["landed"] == counts["behavior_events"]["rows"] == 300
    assert counts["new_behaviors"] == 7


def test_the_rows_of_a_day_of_few_do_not_pass_the_jvm(spark, landing, plan_of, tmp_path, monkeypatch):
    passed = []

    def spied(*args):
        passed.extend(run_in_tasks(*args))
        return passed

    monkeypatch.setattr(settle_few, "run_in_tasks", spied)
    landing.rows("behavior_events", DAY, [event("" if n % 2 else "u", n, f"text {n}") for n in range(4000)])
    counts = dedup_behaviors(spark, plan_of(landing, tmp_path, DAY))["behavior_events"]
    assert (counts["rows"], counts["quarantined"]) == (2000, 2000)
    assert sum(len(row["content"]) for row in passed) < 2000
    assert not list(tmp_path.glob("_settled*"))


def test_texts_that_are_too_long_for_one_column_are_settled():
    texts = pa.array([f"{n}" + "long" * (1 << 18) for n in range(64)])
    columns = {name: pa.array([name] * 64) for name in ("feature", "item_id")}
    columns |= {"dt": pa.array([DAY] * 64), "value": pa.nulls(64, pa.float64()), "text": texts}
    columns["occurred_at"] = pa.repeat(pa.scalar(0, pa.timestamp("us", "UTC")), 64)
    parts = [pa.table({**columns, "user_id": pa.array([f"{n} {m}" for m in range(64)])}) for n in range(33)]
    kept = settle_rows("behavior_events", parts, [], stored_of=lambda late: late.slice(0, 0)).kept
    assert len(kept) == 33 * 64
    assert len(kept["text"].chunk(0).dictionary) == 64


def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path):
    broken = tmp_path / "part-0.parquet"
    broken.write_bytes(b"PAR1 and no footer")
    with pytest.raises(UnreadableFileError, match=r"part-0\.parquet cannot be read"):
        heads_of([str(broken)], lambda source, _: pq.read_schema(source))
