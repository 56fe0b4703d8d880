"""The synthetic log: what lands, that it is the same every time, and that its truth is what it says."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bahe_tasks.data_interval import days_between
from bahe_tasks.sources.synthetic import (
    OracleNotFoundError,
    SyntheticCounts,
    SyntheticLogError,
    oracle_auc,
    read_oracle,
    synthesize,
)
from bahe_tasks.sources.synthetic.oracle import write_oracle

FIRST = date(2024, 1, 1)
DAYS, USERS = 3, 300
LAST = FIRST + timedelta(days=DAYS - 1)
TABLES = ("behavior_events", "impressions", "items")
TIMES = {"behavior_events": "occurred_at", "impressions": "shown_at", "items": "updated_at"}


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticCounts]:
    landing = tmp_path_factory.mktemp("flawed")
    return landing, synthesize(landing, days=DAYS, users=USERS, seed=5, flaw_share=0.02)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticCounts]:
    landing = tmp_path_factory.mktemp("clean")
    return landing, synthesize(landing, days=DAYS, users=USERS, seed=5, flaw_share=0.0)


def lines(landing: Path, table: str, day: date | str = "*") -> list[str]:
    files = sorted(landing.glob(f"{table}/dt={day}/*.jsonl"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def rows(landing: Path, table: str, day: date | str = "*") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(landing, table, day)]


def tree(landing: Path) -> dict[str, bytes]:
    return {str(p.relative_to(landing)): p.read_bytes() for p in landing.rglob("*") if p.is_file()}


def auc(labels: list[int], scores: list[float]) -> float:
    """Share of (clicked, unclicked) pairs in the right order, ties one half; the definition itself."""
    label, score = np.array(labels), np.array(scores)
    difference = score[label == 1][:, None] - score[label == 0][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def test_same_settings_give_the_same_bytes_and_another_seed_another_log(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthesize(tmp_path / name, days=2, users=40, seed=seed)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_more_days_only_add_days(flawed: tuple[Path, SyntheticCounts], tmp_path: Path) -> None:
    synthesize(tmp_path, days=DAYS + 1, users=USERS, seed=5, flaw_share=0.02)
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


def test_truth_is_not_in_the_landed_rows(clean: tuple[Path, SyntheticCounts]) -> None:
    names = {name for row in rows(clean[0], "impressions") for name in row}
    assert names == {
        "impression_id",
        "user_id",
        "item_id",
        "shown_at",
        "label",
        "cat_device",
        "num_position",
        "num_hour",
    }


def test_every_good_impression_has_a_known_probability(clean: tuple[Path, SyntheticCounts]) -> None:
    landing, _ = clean
    for day in days_between(FIRST, LAST):
        assert read_oracle(landing, day).keys() == {row["impression_id"] for row in rows(landing, "impressions", day)}


def test_clicks_follow_the_known_probabilities(clean: tuple[Path, SyntheticCounts]) -> None:
    """Expected and observed clicks differ by less than 4 standard deviations of a sum of independent clicks."""
    landing, counts = clean
    p = np.array([value for day in days_between(FIRST, LAST) for value in read_oracle(landing, day).values()])
    assert abs(counts.clicks - p.sum()) < 4 * math.sqrt((p * (1 - p)).sum())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_best_reachable_auc_lies_between_080_and_086(seed: int, tmp_path: Path) -> None:
    synthesize(tmp_path, days=2, users=200, seed=seed)
    assert 0.80 < oracle_auc(tmp_path, FIRST, FIRST + timedelta(days=1)) < 0.86


def test_best_reachable_auc_is_the_auc_of_the_truth_and_far_above_popularity(
    clean: tuple[Path, SyntheticCounts],
) -> None:
    landing, _ = clean
    clicks: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for day in days_between(FIRST, LAST - timedelta(days=1)):
        for row in rows(landing, "impressions", day):
            shown[row["item_id"]] += 1
            clicks[row["item_id"]] += row["label"]
    today = rows(landing, "impressions", LAST)
    truth = read_oracle(landing, LAST)
    labels = [row["label"] for row in today]
    popularity = auc(labels, [(clicks[r["item_id"]] + 1) / (shown[r["item_id"]] + 3) for r in today])
    best = oracle_auc(landing, LAST, LAST)
    assert abs(best - auc(labels, [truth[row["impression_id"]] for row in today])) < 0.03
    assert best > popularity + 0.1


def test_words_of_a_history_tell_which_titles_are_clicked(clean: tuple[Path, SyntheticCounts]) -> None:
    """Score = share of a user's earlier behaviors that share a word with the title; no encoder, so a lower bound."""
    landing, _ = clean
    title = {row["item_id"]: set(row["title"].split()) for row in rows(landing, "items")}
    history: dict[str, list[tuple[str, set[str]]]] = {}
    for row in rows(landing, "behavior_events"):
        history.setdefault(row["user_id"], []).append((row["occurred_at"], set(row["text"].split())))
    frames = {
        "the",
        "a",
        "to",
        "how",
        "best",
        "at",
        "and",
        "for",
        "or",
        "about",
        "guide",
        "near",
        "me",
        "paid",
        "price",
    }
    labels, scores = [], []
    for row in rows(landing, "impressions", LAST):
        words = title[row["item_id"]] - frames
        before = [text for time, text in history.get(row["user_id"], []) if time < row["shown_at"]]
        labels.append(row["label"])
        scores.append(sum(bool(text & words) for text in before) / (len(before) + 1))
    assert auc(labels, scores) > 0.57


def test_expected_auc_of_two_impressions_by_hand(tmp_path: Path) -> None:
    """p = 0.2 and 0.8: right order with weight 0.8 · 0.8 = 0.64, wrong with 0.2 · 0.2 = 0.04."""
    write_oracle(tmp_path, FIRST, impression_ids=np.array(["a", "b"]), probability=np.array([0.2, 0.8]))
    assert oracle_auc(tmp_path, FIRST, FIRST) == pytest.approx(0.64 / 0.68)


def test_expected_auc_of_equal_probabilities_is_one_half(tmp_path: Path) -> None:
    write_oracle(tmp_path, FIRST, impression_ids=np.array(["a", "b", "c"]), probability=np.full(3, 0.3))
    assert oracle_auc(tmp_path, FIRST, FIRST) == pytest.approx(0.5)


def test_expected_auc_needs_the_truth_of_every_day(tmp_path: Path) -> None:
    with pytest.raises(OracleNotFoundError, match="bahe synthesize"):
        oracle_auc(tmp_path, FIRST, FIRST)


def test_landing_folder_with_another_synthetic_log_is_refused(tmp_path: Path) -> None:
    synthesize(tmp_path, days=1, users=10, seed=1)
    before = tree(tmp_path)
    with pytest.raises(SyntheticLogError, match="other settings"):
        synthesize(tmp_path, days=1, users=10, seed=2)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("days", "users", "seed", "flaw_share"), [(0, 10, 1, 0.0), (1, 0, 1, 0.0), (1, 10, -1, 0.0), (1, 10, 1, 0.5)]
)
def test_setting_out_of_range_is_refused_before_anything_is_written(
    days: int, users: int, seed: int, flaw_share: float, tmp_path: Path
) -> None:
    with pytest.raises(SyntheticLogError, match="must be"):
        synthesize(tmp_path / "landing", days=days, users=users, seed=seed, flaw_share=flaw_share)
    assert not (tmp_path / "landing").exists()


def test_one_user_is_enough(tmp_path: Path) -> None:
    assert synthesize(tmp_path, days=2, users=1, seed=3).users == 2
