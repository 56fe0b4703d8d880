"""The synthetic log: what lands, that it is the same every time, and what is wrong with it on purpose."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from landed_rows import lines, rows, tree

from bahe_tasks.data_interval import days_between
from bahe_tasks.sources.synthetic import SyntheticCounts, SyntheticLogError, read_oracle, synthesize

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)
TABLES = ("behavior_events", "impressions", "items")
TIMES = {"behavior_events": "occurred_at", "impressions": "shown_at", "items": "updated_at"}


def test_same_settings_give_the_same_bytes_and_another_seed_another_log(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthesize(tmp_path / name, days=2, users=40, seed=seed)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_more_days_only_add_days(flawed: tuple[Path, SyntheticCounts], tmp_path: Path) -> None:
    synthesize(tmp_path, days=4, users=300, seed=5, flaw_share=0.02)
    longer, shorter = tree(tmp_path), tree(flawed[0])
    assert shorter.items() <= longer.items()
    assert {name.split("dt=")[1][:10] for name in longer.keys() - shorter.keys()} == {"2024-01-04"}


def test_making_the_log_again_changes_no_file(tmp_path: Path) -> None:
    assert synthesize(tmp_path, days=2, users=20, seed=1).files_changed == 8  # 3 tables and the truth, 2 days
    assert synthesize(tmp_path, days=2, users=20, seed=1).files_changed == 0


def test_counts_are_the_lines_of_the_files(flawed: tuple[Path, SyntheticCounts]) -> None:
    landing, counts = flawed
    assert (counts.behavior_events, counts.impressions, counts.items) == tuple(
        len(lines(landing, table)) for table in TABLES
    )
    known = {name for day in days_between(FIRST, LAST) for name in read_oracle(landing, day)}
    broken_impressions = Counter(lines(landing, "impressions")).total() - sum(
        json.loads(line)["impression_id"] in known for line in lines(landing, "impressions") if line.endswith("}")
    )
    surplus = sum(
        number - 1
        for table in ("behavior_events", "impressions")
        for line, number in Counter(lines(landing, table)).items()
        if line.endswith("}") and "-broken" not in line
    )
    assert surplus == counts.duplicate_rows
    assert 0 < broken_impressions < counts.broken_rows
    assert counts.impressions == len(known) + broken_impressions + sum(
        number - 1 for line, number in Counter(lines(landing, "impressions")).items() if line.endswith("}")
    )


def test_every_kind_of_broken_row_lands(flawed: tuple[Path, SyntheticCounts]) -> None:
    landing, counts = flawed
    kinds: Counter[str] = Counter()
    for table, day in ((table, day) for table in TABLES for day in days_between(FIRST, LAST)):
        for line in lines(landing, table, day):
            kinds[why_broken(table, line, day)] += 1
    kinds.pop("good")
    assert set(kinds) == {
        "half a line",
        "no id",
        "no feature",
        "no time",
        "after the day",
        "too late",
        "label",
        "no text",
    }
    assert kinds.total() == counts.broken_rows


def why_broken(table: str, line: str, day: date) -> str:
    if not line.endswith("}"):
        return "half a line"
    row = json.loads(line)
    if not all(row.get(name, "x") for name in ("text", "title")) or row.get("text", "x").isspace():
        return "no text"
    needed = {"behavior_events": ("user_id",), "items": ("item_id",)}.get(table, ("impression_id", "user_id"))
    if any(name not in row for name in needed):
        return "no id"
    if table == "behavior_events" and "feature" not in row:
        return "no feature"
    if row.get("label", 0) not in (0, 1):
        return "label"
    try:
        time = datetime.fromisoformat(row[TIMES[table]]).date()
    except ValueError:
        return "no time"
    return "after the day" if time > day else "too late" if time < day - timedelta(days=3) else "good"


def test_late_rows_keep_within_the_default_lateness(flawed: tuple[Path, SyntheticCounts]) -> None:
    landing, counts = flawed
    late = 0
    for table, day in ((table, day) for table in TABLES for day in days_between(FIRST, LAST)):
        for line in set(lines(landing, table, day)):
            if why_broken(table, line, day) == "good":
                late += datetime.fromisoformat(json.loads(line)[TIMES[table]]).date() < day
    broken_copies = [line for line in lines(landing, "impressions") if "-broken" in line]
    assert 0 < counts.late_rows <= late <= counts.late_rows + len(broken_copies)


def test_clean_log_has_no_flaw(clean: tuple[Path, SyntheticCounts]) -> None:
    landing, counts = clean
    assert (counts.late_rows, counts.duplicate_rows, counts.broken_rows) == (0, 0, 0)
    for table, day in ((table, day) for table in TABLES for day in days_between(FIRST, LAST)):
        landed = lines(landing, table, day)
        assert {why_broken(table, line, day) for line in landed} == {"good"}
        assert {datetime.fromisoformat(json.loads(line)[TIMES[table]]).date() for line in landed} == {day}
        assert len(set(landed)) == len(landed)


def test_three_formats_hold_the_same_rows(flawed: tuple[Path, SyntheticCounts], tmp_path: Path) -> None:
    counts = [
        synthesize(tmp_path / name, days=1, users=60, seed=2, file_format=name) for name in ("jsonl", "csv", "parquet")
    ]
    assert counts[0] == counts[1] == counts[2]
    for table in TABLES:
        as_json = [set(row.items()) for row in rows_of_whole_lines(tmp_path / "jsonl", table)]
        path = f"{table}/dt={FIRST}/synthetic-00000"
        with (tmp_path / "csv" / f"{path}.csv").open(encoding="utf-8", newline="") as file:
            as_csv = list(csv.DictReader(file))
        as_parquet = pq.read_table(tmp_path / "parquet" / f"{path}.parquet").to_pylist()
        assert len(as_csv) == len(as_parquet) == len(lines(tmp_path / "jsonl", table))
        for number, expected in enumerate(as_json):
            assert {(k, v) for k, v in as_parquet[number].items() if v is not None} == expected
            assert {(k, v) for k, v in as_csv[number].items() if v} == {(k, str(v)) for k, v in expected}


def rows_of_whole_lines(landing: Path, table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(landing, table) if line.endswith("}")]


def test_new_users_and_new_items_appear_every_day(clean: tuple[Path, SyntheticCounts]) -> None:
    landing, _ = clean
    for table, name in (("behavior_events", "user_id"), ("items", "item_id")):
        seen: set[str] = set()
        for day in days_between(FIRST, LAST):
            today = {row[name] for row in rows(landing, table, day)}
            assert today - seen
            seen |= today


def test_item_is_described_anew_when_its_price_changes(clean: tuple[Path, SyntheticCounts]) -> None:
    prices: dict[str, list[float]] = {}
    for row in rows(clean[0], "items"):
        prices.setdefault(row["item_id"], []).append(row["num_price"])
    assert any(len(set(history)) > 1 for history in prices.values())


def test_landing_folder_with_another_synthetic_log_is_refused(tmp_path: Path) -> None:
    synthesize(tmp_path, days=1, users=10, seed=1)
    before = tree(tmp_path)
    with pytest.raises(SyntheticLogError, match="other settings"):
        synthesize(tmp_path, days=1, users=10, seed=2)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("days", 0, "days must be at least 1, not 0"),
        ("users", 0, "users must be at least 1, not 0"),
        ("seed", -1, "seed must be at least 0, not -1"),
        ("flaw_share", 0.5, "flaw_share must be in"),
        ("first_day", date(9998, 12, 31), "first_day must be at least 2 days before 9999-01-01"),
        ("first_day", date.max, "first_day must be at least 2 days before 9999-01-01"),
    ],
)
def test_setting_out_of_range_is_refused_by_name_before_anything_is_written(
    setting: str, value: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SyntheticLogError, match=message):
        synthesize(tmp_path / "landing", **{"days": 2, "users": 10, "seed": 1, setting: value})
    assert not (tmp_path / "landing").exists()


def test_one_user_is_enough(tmp_path: Path) -> None:
    assert synthesize(tmp_path, days=2, users=1, seed=3).users == 2
