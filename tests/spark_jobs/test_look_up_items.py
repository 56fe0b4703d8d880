"""An impression sees its item as it was when it was shown."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from spark_jobs.look_up_items import look_up_items

# item, dt, updated at hour of day 1, title, cat colour, num price
VERSIONS = [
    ("a", 1, 1, "a1", "red", 1.0),
    ("a", 1, 3, "a3", "blue", 3.0),
    ("a", 2, 3, "a3 landed later", "green", 3.5),
    ("b", 1, 5, "b5", "red", 5.0),
    ("b", 1, 6, "b6", "blue", 6.0),
]


@pytest.fixture
def looked_up(spark):
    """(item, hour shown, own colour) → (title_key, colour, price)"""
    items = spark.createDataFrame(
        VERSIONS, "item_id string, d int, h int, title_key string, colour string, price double"
    )
    items = items.select(
        "item_id", "title_key", F.col("title_key").alias("title"),
        F.date_add(F.lit("2024-03-09").cast("date"), F.col("d")).alias("dt"),
        F.timestamp_seconds(F.col("h") * 3600).alias("updated_at"),
        F.create_map(F.lit("colour"), "colour").alias("cat"),
        F.create_map(F.lit("price"), "price").alias("num"),
    )  # fmt: skip
    shown = [
        ("a", 0, None),
        ("a", 1, None),
        ("a", 2, None),
        ("a", 3, None),
        ("a", 9, "own"),
        ("b", 4, None),
        ("c", 4, "own"),
    ]
    impressions = spark.createDataFrame(shown, "item_id string, h int, own string").select(
        "item_id", "h", "own",
        F.timestamp_seconds(F.col("h") * 3600).alias("shown_at"),
        F.map_filter(F.create_map(F.lit("colour"), "own"), lambda _, v: v.isNotNull()).alias("cat"),
        F.create_map().cast("map<string,double>").alias("num"),
    )  # fmt: skip
    rows = look_up_items(impressions, items).collect()
    assert len(rows) == len(shown)
    return {
        (r["item_id"], r["h"], r["own"]): (r["title_key"], r["cat"].get("colour"), r["num"].get("price")) for r in rows
    }


@pytest.mark.spark
def test_the_newest_row_at_or_before_shown_at_counts_and_of_equal_times_the_later_landed(looked_up):
    assert looked_up["a", 1, None] == looked_up["a", 2, None] == ("a1", "red", 1.0)
    assert looked_up["a", 3, None] == ("a3 landed later", "green", 3.5)


@pytest.mark.spark
def test_an_item_described_later_has_title_and_categories_of_its_earliest_row_but_no_numbers(looked_up):
    assert looked_up["a", 0, None] == ("a1", "red", None)
    assert looked_up["b", 4, None] == ("b5", "red", None)


@pytest.mark.spark
def test_the_impressions_own_values_win_and_an_unknown_item_has_no_title(looked_up):
    assert looked_up["a", 9, "own"] == ("a3 landed later", "own", 3.5)
    assert looked_up["c", 4, "own"] == (None, "own", None)
