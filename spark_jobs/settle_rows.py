"""Which judged rows go to a table, which are duplicates, which go to quarantine.

A judged frame has a row for every landed row; `reason` says why a row is refused. Of rows with the same content one is
kept, with the number of its `copies`.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.parse_fields import in_key_order


class Settled(NamedTuple):
    """`kept`: the table's rows and `copies`. `quarantined`: dt, reason, source_file, raw."""

    kept: DataFrame
    quarantined: DataFrame


def settle_duplicates(judged: DataFrame, *, content: tuple[str, ...]) -> Settled:
    """Keep one row of each content; other columns must follow from the content."""
    rest = [F.first(name).alias(name) for name in judged.columns if name not in (*content, *_JUDGEMENT)]
    kept = judged.where("reason IS NULL").groupBy(*content).agg(F.count("*").alias("copies"), *rest)
    return Settled(kept, judged.where("reason IS NOT NULL").select(*_QUARANTINED))


def settle_conflicts(judged: DataFrame, *, key: str, content: tuple[str, ...]) -> Settled:
    """Keep one row of each (dt, key); where its rows differ in content, all of them are `conflicting_impression`."""
    kinds = dict(judged.dtypes)
    comparable = [in_key_order(F.col(c)) if kinds[c].startswith("map") else F.col(c) for c in content]
    same_key = Window.partitionBy("dt", key)
    good = (
        judged.where("reason IS NULL")
        .withColumn("content", F.struct(*comparable))
        .withColumns(
            {
                "copies": F.count("*").over(same_key),
                "copy": F.row_number().over(same_key.orderBy("content")),
                "conflicts": F.min("content").over(same_key) != F.max("content").over(same_key),
            }
        )
    )
    kept = good.where("NOT conflicts AND copy = 1").drop("content", "copy", "conflicts", *_JUDGEMENT)
    conflicting = good.where("conflicts").withColumn("reason", F.lit("conflicting_impression"))
    refused = judged.where("reason IS NOT NULL").select(*_QUARANTINED).union(conflicting.select(*_QUARANTINED))
    return Settled(kept, refused)


_JUDGEMENT = ("reason", "source_file", "raw", "unknown")
_QUARANTINED = ("dt", "reason", "source_file", "raw")
