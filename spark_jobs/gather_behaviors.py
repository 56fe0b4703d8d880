"""Which atomic behaviors a run meets: which its models need, which of those are new, which the dictionary lacks.

New are needed keys with no embedding under this encoder_version (PAPER.md, steps 1 and 4).

Unusual: embeddings that this very day wrote do not count as there, so a second run reports the same numbers. One frame
answers all three questions, so that the dictionary and the embedding table are read once.
"""

from __future__ import annotations

import functools
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def needed_keys(*, events: DataFrame, sequences: DataFrame, impressions: DataFrame) -> DataFrame:
    """Return behavior_key, with repetitions, of the day's events and of the sequences and titles of the windows."""
    keys = [
        events.select("behavior_key"),
        sequences.select(F.explode("behavior_keys").alias("behavior_key")),
        impressions.select(F.col("title_key").alias("behavior_key")).where("behavior_key IS NOT NULL"),
    ]
    return functools.reduce(DataFrame.union, keys)


def landed_texts(*, events: DataFrame, items: DataFrame) -> DataFrame:
    """Return (behavior_key, text), with repetitions, of every text that landed."""
    titles = items.select(F.col("title_key").alias("behavior_key"), F.col("title").alias("text"))
    return events.select("behavior_key", "text").union(titles)


def gather_behaviors(
    needed: DataFrame,
    texts: DataFrame,
    *,
    dictionary: DataFrame,
    embeddings: DataFrame,
    encoder_version: str,
    day: date,
) -> DataFrame:
    """Return each behavior_key of `needed` and `texts` once, with text, is_needed, is_new and in_dictionary."""
    met = needed.distinct().select(
        "behavior_key", F.lit(None).cast("string").alias("text"), F.lit(True).alias("needed")
    )
    landed = texts.distinct().select("behavior_key", "text", F.lit(False).alias("needed"))
    keys = (
        met.union(landed)
        .groupBy("behavior_key")
        .agg(F.max("text").alias("landed_text"), F.max("needed").alias("is_needed"))
    )
    embedded = (
        embeddings.where((F.col("encoder_version") == encoder_version) & (F.col("dt") != F.lit(day)))
        .select("behavior_key", F.lit(True).alias("embedded"))
        .distinct()
    )
    joined = keys.join(dictionary, "behavior_key", "left").join(embedded, "behavior_key", "left")
    return joined.select(
        "behavior_key",
        F.coalesce("text", "landed_text").alias("text"),
        "is_needed",
        (F.col("is_needed") & F.col("embedded").isNull()).alias("is_new"),
        F.col("text").isNotNull().alias("in_dictionary"),
    )
