"""An impression sees its item as it was when it was shown."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.derived.look_up_items import VERSIONS as VERSIONS_SCHEMA
from spark_jobs.derived.look_up_items import look_up_items

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
