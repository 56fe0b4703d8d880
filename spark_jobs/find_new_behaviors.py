"""Which atomic behaviors the run's models need, and which of them have no embedding yet (PAPER.md, steps 1 and 4).

Unusual: embeddings that this very day wrote do not count as there, so a second run reports the same numbers.
"""

from __future__ import annotations

import functools
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def needed_keys(*, events: DataFrame, sequences: DataFrame, impressions: DataFrame) -> DataFrame:
    """Return the distinct behavior_key of the day's events, and of the sequences and titles of the windows."""
    keys = [
        events.select("behavior_key"),
        sequences.select(F.explode("behavior_keys").alias("behavior_key")),
        impressions.select(F.col("title_key").alias("behavior_key")).where("behavior_key IS NOT NULL"),
    ]
    return functools.reduce(DataFrame.union, keys).distinct()


def mark_new(needed: DataFrame, embeddings: DataFrame, *, encoder_version: str, day: date) -> DataFrame:
    """Return `needed` with is_new: no run of another day has encoded the key under this encoder_version."""
    embedded = (
        embeddings.where((F.col("encoder_version") == encoder_version) & (F.col("dt") != F.lit(day)))
        .select("behavior_key", F.lit(True).alias("embedded"))
        .dropDuplicates(["behavior_key"])
    )
    joined = needed.join(embedded, "behavior_key", "left")
    return joined.select("behavior_key", F.col("embedded").isNull().alias("is_new"))


def new_texts(events: DataFrame, items: DataFrame, dictionary: DataFrame) -> DataFrame:
    """Return (behavior_key, text) of the events' texts and items' titles that the dictionary lacks, each once."""
    titles = items.select(F.col("title_key").alias("behavior_key"), F.col("title").alias("text"))
    seen = events.select("behavior_key", "text").union(titles).dropDuplicates(["behavior_key"])
    return seen.join(dictionary.select("behavior_key"), "behavior_key", "left_anti")
