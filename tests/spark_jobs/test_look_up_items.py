"""An impression sees its item as it was when it was shown."""

from __future__ import annotations

from datetime import UTC, date, datetime
from random import Random

import pyarrow as pa
import pytest

from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.derived import look_up_items as module
from spark_jobs.derived.look_up_items import VERSIONS as VERSIONS_SCHEMA
from spark_jobs.derived.look_up_items import look_up_items, versions_read

# item, dt, updated at hour of day 1, title, cat colour, num price
VERSIONS = [
    ("a", 1, 1, "a1", "red", 1.0),
    ("a", 1, 3, "a3", "blue", 3.0),
    ("a", 2, 3, "a3 landed later", "green", 3.5),
    ("b", 1, 5, "b5", "red", 5.0),
    ("b", 1, 6, "b6", "blue", 6.0),
]


def hour(h: int) -> datetime:
    return datetime.fromtimestamp(h * 3600, UTC)


@pytest.fixture
def looked_up():
    """(item, hour shown, own colour) → (title_key, colour, price)"""
    versions = [
        {
            "dt": date(2024, 3, 9 + d), "item_id": item, "updated_at": hour(h), "title_key": title, "title": title,
            "cat": {"colour": colour}, "num": {"price": price},
        }
        for item, d, h, title, colour, price in VERSIONS
    ]  # fmt: skip
    shown = [
        ("a", 0, None),
        ("a", 1, None),
        ("a", 2, None),
        ("a", 3, None),
        ("a", 9, "own"),
        ("b", 4, None),
        ("c", 4, "own"),
    ]
    columns = ("item_id", "shown_at", "cat", "num")
    schema = pa.schema([arrow_schema("impressions").field(name) for name in columns])
    impressions = pa.Table.from_pylist(
        [{"item_id": i, "shown_at": hour(h), "cat": {"colour": own} if own else {}, "num": {}} for i, h, own in shown],
        schema=schema,
    )
    rows = look_up_items(impressions, pa.Table.from_pylist(versions, schema=VERSIONS_SCHEMA)).to_pylist()
    assert len(rows) == len(shown)
    return {
        (item, h, own): (row["title_key"], dict(row["cat"]).get("colour"), dict(row["num"]).get("price"))
        for (item, h, own), row in zip(shown, rows, strict=True)
    }


def test_the_newest_row_at_or_before_shown_at_counts_and_of_equal_times_the_later_landed(looked_up):
    assert looked_up["a", 1, None] == looked_up["a", 2, None] == ("a1", "red", 1.0)
    assert looked_up["a", 3, None] == ("a3 landed later", "green", 3.5)


def test_an_item_described_later_has_title_and_categories_of_its_earliest_row_but_no_numbers(looked_up):
    assert looked_up["a", 0, None] == ("a1", "red", None)
    assert looked_up["b", 4, None] == ("b5", "red", None)


def test_the_impressions_own_values_win_and_an_unknown_item_has_no_title(looked_up):
    assert looked_up["a", 9, "own"] == ("a3 landed later", "own", 3.5)
    assert looked_up["c", 4, "own"] == (None, "own", None)


def versions_of(random, count):
    rows = [
        {
            "dt": date(2024, 3, random.randrange(8, 11)), "item_id": random.choice("abcdef"),
            "updated_at": hour(random.randrange(8)), "title_key": title, "title": title,
            "cat": {"colour": random.choice(["red", "blue"])}, "num": {"price": random.random()},
        }
        for title in random.choices("xyz", k=count)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=VERSIONS_SCHEMA)


def shown_of(*rows):
    schema = pa.schema([arrow_schema("impressions").field(name) for name in ("item_id", "shown_at", "cat", "num")])
    empty = {"cat": {}, "num": {}}
    return pa.Table.from_pylist([{"item_id": i, "shown_at": hour(h), **empty} for i, h in rows], schema=schema)


def by_hand(impression, versions):
    """Python's order of time, day and all that a row says."""
    of_item = [row for row in versions if row["item_id"] == impression["item_id"]]
    of_item.sort(key=lambda row: [row[name] for name in ("updated_at", "dt", "title", "cat", "num")])
    known = [row for row in of_item if row["updated_at"] <= impression["shown_at"]]
    row = known[-1] if known else of_item[0] if of_item else {"title": None, "cat": []}
    return row["title"], row["cat"], known[-1]["num"] if known else []


@pytest.mark.parametrize("seed", range(20))
def test_of_all_versions_and_of_those_that_are_read_the_same_is_known(seed):
    random = Random(seed)
    versions = versions_of(random, random.choice([0, 1, 5, 80]))
    shown = shown_of(*((random.choice("abcdefg"), random.randrange(9)) for _ in range(random.choice([0, 9]))))
    read = versions_read([versions.slice(n, 3) for n in range(0, len(versions), 3)], shown, rows_held=4)
    for rows in (versions, read):
        found = look_up_items(shown, rows).select(["title", "cat", "num"]).to_pylist()
        assert [tuple(row.values()) for row in found] == [by_hand(of, versions.to_pylist()) for of in shown.to_pylist()]


def test_versions_before_the_newest_one_that_is_known_to_all_are_not_read():
    versions = pa.Table.from_pylist(
        [{"dt": date(2024, 3, 9), "item_id": "a", "updated_at": hour(h), "title": str(h)} for h in range(9)],
        schema=VERSIONS_SCHEMA,
    )
    assert versions_read([versions], shown_of(("a", 5), ("a", 8), ("b", 0)))["title"].to_pylist() == list("5678")


def test_versions_of_one_time_alone_are_told_apart_in_python(monkeypatch):
    told = []
    monkeypatch.setattr(module, "sorted", lambda rows, **how: told.extend(rows) or list(rows), raising=False)
    rows = [{"dt": date(2024, 3, 9), "item_id": "a", "updated_at": hour(h), "cat": {}, "num": {}} for h in range(99)]
    look_up_items(shown_of(("a", 50)), pa.Table.from_pylist(rows, schema=VERSIONS_SCHEMA))
    assert not told
