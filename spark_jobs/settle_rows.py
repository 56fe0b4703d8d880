"""Which judged rows go to a table, which are duplicates, which go to quarantine.

Unusual: good and refused rows are kept together as they come, so a landed row is read and parsed once; the rows of a
table and those of the quarantine are two views of them. Of many events only the hashes are shuffled: an event whose hash
no other has is no other's copy, and the few that remain are compared in full.
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
_FEW_HASHES = 2_000_000
"""As many fit into each task's memory, at some 16 bytes."""


class Settled(NamedTuple):
    """One source: `kept`, its table's rows and their number of `copies`; `quarantined`: dt, reason, source_file, raw."""

    kept: DataFrame
    quarantined: DataFrame


def settle_events(judged: DataFrame, *, are_few: bool) -> Settled:
    """Keep one of each event, with its behavior_key. `are_few`: they are sooner grouped than hashed and grouped."""
    keys = {"behavior_key": behavior_key(F.col("text"))}
    settle = _settle_duplicates if are_few else _settle_by_hash
    return settle(judged, EVENT_CONTENT, keys)


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
        .localCheckpoint()
    )
    kept = grouped.where("reason IS NULL").select(*content, "copies").withColumns(keys)
    quarantined = grouped.where("reason IS NOT NULL").select("dt", "reason", *_REFUSED, _once_a_copy())
    return Settled(kept, quarantined.drop("copy"))


def _settle_by_hash(judged: DataFrame, content: tuple[str, ...], keys: dict[str, Column]) -> Settled:
    """As `_settle_duplicates`. The hash may be the same where content is not; never the other way round."""
    rows = judged.select(*content, "reason", *_REFUSED, F.xxhash64(*content).alias("hash"))
    # As bytes: millions of rows as objects would be what the memory cleaner works on.
    rows = rows.localCheckpoint(storageLevel=StorageLevel.MEMORY_AND_DISK)
    good = rows.where("reason IS NULL")
    hashes = good.groupBy("hash").agg(F.count("*").alias("rows")).where("rows > 1").select("hash").localCheckpoint()
    if hashes.count() <= _FEW_HASHES:
        hashes = F.broadcast(hashes)
    once = good.join(hashes, "hash", "left_anti").select(*content, F.lit(1).cast("bigint").alias("copies"))
    several = good.join(hashes, "hash", "left_semi").groupBy(*content).agg(F.count("*").alias("copies"))
    kept = once.union(several.localCheckpoint())
    return Settled(kept.withColumns(keys), rows.where("reason IS NOT NULL").select("dt", "reason", *_REFUSED))


def _once_a_copy() -> Column:
    return F.explode(F.sequence(F.lit(1), F.col("copies").cast("int"))).alias("copy")


def _if_refused(name: str) -> Column:
    return F.when(F.col("reason").isNotNull(), F.col(name)).alias(name)
