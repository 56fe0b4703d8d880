"""What was known of an impression's item when it was shown.

The newest item row updated at or before `shown_at` counts. An item first described later still has its title and
categories (they name the thing), but never its numbers, which could tell the future.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def look_up_items(impressions: DataFrame, items: DataFrame) -> DataFrame:
    """Return `impressions` with title_key and title, and with cat and num filled up from the item; its own values win.

    `items`: the rows of every day that may be read. title_key and title are null for an unknown item. Of rows updated at the same
    time the one of the greater dt counts.
    """
    version = F.struct(
        "updated_at",
        "dt",
        "title_key",
        "title",
        _in_key_order("cat").alias("cat"),
        _in_key_order("num").alias("num"),
    )
    shown = impressions.select("item_id").distinct()
    versions = (
        items.join(shown, "item_id", "left_semi")
        .groupBy("item_id")
        .agg(F.sort_array(F.collect_list(version)).alias("versions"))
    )
    joined = impressions.join(versions, "item_id", "left")
    shown_at = F.col("shown_at")
    known = F.filter("versions", lambda v: v["updated_at"] <= shown_at)
    newest, earliest = F.try_element_at(known, F.lit(-1)), F.get("versions", F.lit(0))
    looked_up = joined.withColumn("newest", newest).withColumn("item", F.coalesce("newest", earliest))
    return (
        looked_up.withColumn("title_key", F.col("item.title_key"))
        .withColumn("title", F.col("item.title"))
        .withColumn("cat", _filled_up("cat", F.col("item.cat")))
        .withColumn("num", _filled_up("num", F.col("newest.num")))
        .drop("versions", "newest", "item")
    )


def _filled_up(own: str, entries: Column) -> Column:
    """Return the map `own` with the entries whose key it lacks."""
    lacking = F.filter(entries, lambda entry: ~F.map_contains_key(own, entry["key"]))
    return F.when(entries.isNull(), F.col(own)).otherwise(F.map_concat(own, F.map_from_entries(lacking)))


def _in_key_order(entries: str) -> Column:
    """Return a map as an array of its entries sorted by key, which, unlike a map, can be compared."""
    return F.array_sort(F.map_entries(entries))
