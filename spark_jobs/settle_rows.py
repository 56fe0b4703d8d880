"""Which judged rows go to a table, which are duplicates, which go to quarantine.

Unusual: good and refused rows pass through one grouping, so a landed row is read, parsed and shuffled once; the rows
of a table and those of the quarantine are two views of its result.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.canonical_text import behavior_key
from spark_jobs.judge_events import EVENT_CONTENT
from spark_jobs.judge_impressions import IMPRESSION_CONTENT
from spark_jobs.judge_items import ITEM_CONTENT
from spark_jobs.parse_fields import in_key_order

_REFUSED = ("source_file", "raw")


class Settled(NamedTuple):
    """One source: `kept`, its table's rows and their number of `copies`; `quarantined`: dt, reason, source_file, raw."""

    kept: DataFrame
    quarantined: DataFrame


def settle_events(judged: DataFrame) -> Settled:
    """Keep one of each event, with its behavior_key."""
    return _settle_duplicates(judged, EVENT_CONTENT, {"behavior_key": behavior_key(F.col("text"))})


def settle_items(judged: DataFrame) -> Settled:
    """Keep one of each item row, with its title_key."""
    return _settle_duplicates(judged, ITEM_CONTENT, {"title_key": behavior_key(F.col("title"))})


def settle_impressions(judged: DataFrame) -> Settled:
    """Keep one of each impression; an impression_id whose rows differ is `conflicting_impression` in all of them."""
    maps = [name for name, kind in judged.dtypes if kind.startswith("map")]
    content = F.struct(*[in_key_order(F.col(c)).alias(c) if c in maps else F.col(c) for c in IMPRESSION_CONTENT])
    landed = F.struct(content.alias("content"), *_REFUSED)
    grouped = (
        judged.groupBy("dt", "impression_id", "reason", _if_refused("raw"))
        .agg(F.collect_list(landed).alias("versions"))
        .localCheckpoint()
    )
    conflicts = F.col("reason").isNull() & (F.size(F.array_distinct("versions.content")) > 1)
    settled = grouped.withColumn("reason", F.when(conflicts, "conflicting_impression").otherwise(F.col("reason")))
    version = F.col("versions")[0]["content"]
    kept = settled.where("reason IS NULL").select(
        "dt",
        "impression_id",
        *[(F.map_from_entries(version[c]) if c in maps else version[c]).alias(c) for c in IMPRESSION_CONTENT],
        F.size("versions").alias("copies"),
    )
    quarantined = settled.where("reason IS NOT NULL").select("dt", "reason", F.inline("versions"))
    return Settled(kept, quarantined.select("dt", "reason", *_REFUSED))


def _settle_duplicates(judged: DataFrame, content: tuple[str, ...], keys: dict[str, Column]) -> Settled:
    grouped = (
        judged.groupBy(*content, "reason", *[_if_refused(name) for name in _REFUSED])
        .agg(F.count("*").alias("copies"))
        # As bytes: millions of rows as objects would be what the memory cleaner works on.
        .localCheckpoint(storageLevel=StorageLevel.MEMORY_AND_DISK)
    )
    kept = grouped.where("reason IS NULL").select(*content, "copies").withColumns(keys)
    quarantined = grouped.where("reason IS NOT NULL").select("dt", "reason", *_REFUSED, _once_a_copy())
    return Settled(kept, quarantined.drop("copy"))


def _once_a_copy() -> Column:
    return F.explode(F.sequence(F.lit(1), F.col("copies").cast("int"))).alias("copy")


def _if_refused(name: str) -> Column:
    return F.when(F.col("reason").isNotNull(), F.col(name)).alias(name)
