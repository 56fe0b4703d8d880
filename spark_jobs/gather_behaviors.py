"""Which atomic behaviors a run meets: which its models need, which of those are new, which the dictionary lacks.

New are needed keys with no embedding under this encoder_version (PAPER.md, steps 1 and 4).

Unusual: embeddings that this very day wrote do not count as there, so a second run reports the same numbers. A text gets
its key once, however many rows have it.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.look_up_keys import look_up_keys


def landed_texts(plan: DedupPlan, *, events: DataFrame, items: DataFrame) -> DataFrame:
    """Return behavior_key, text, is_needed of every text that landed, once; needed are those of the day's events."""
    of_events = events.select("behavior_key", "text", (F.col("dt") == F.lit(plan.day)).alias("is_needed"))
    titles = items.select(F.col("title_key"), F.col("title"), F.lit(False))
    texts = of_events.union(titles).groupBy("behavior_key")
    return texts.agg(F.first("text").alias("text"), F.max("is_needed").alias("is_needed"))


def gather_behaviors(spark: SparkSession, plan: DedupPlan, *, texts: DataFrame, needed: DataFrame) -> DataFrame:
    """Return each behavior_key of `needed` and `texts` once, with text, is_needed, is_new and in_dictionary.

    `texts`: `landed_texts`; `needed`: further keys that are needed.
    """
    others = needed.select("behavior_key", F.lit(None).cast("string").alias("text"), F.lit(True))
    met = (
        texts.union(others)
        .groupBy("behavior_key")
        .agg(F.max("text").alias("text"), F.max("is_needed").alias("is_needed"))
        .localCheckpoint()
    )
    by_other_days = f"encoder_version = '{plan.encoder_version}' AND dt <> '{plan.day}'"
    known = look_up_keys(spark, met, tables_dir=plan.tables_dir, name="atomic_behaviors")
    embedded = look_up_keys(
        spark,
        met.where("is_needed"),
        tables_dir=plan.tables_dir,
        name="behavior_embeddings",
        partitions=by_other_days,
    )
    flagged = (
        met.join(known.select("behavior_key", F.lit(True).alias("known")), "behavior_key", "left")
        .join(embedded.distinct().select("behavior_key", F.lit(True).alias("embedded")), "behavior_key", "left")
        .select(
            "behavior_key",
            "text",
            "is_needed",
            (F.col("is_needed") & F.col("embedded").isNull()).alias("is_new"),
            F.col("known").isNotNull().alias("in_dictionary"),
        )
        .localCheckpoint()
    )
    return _with_known_texts(spark, plan, flagged)


def _with_known_texts(spark: SparkSession, plan: DedupPlan, behaviors: DataFrame) -> DataFrame:
    """Fill in the texts of new behaviors that did not land: those of a history met for the first time by an encoder."""
    without = behaviors.where("is_new AND text IS NULL")
    known = look_up_keys(
        spark, without, tables_dir=plan.tables_dir, name="atomic_behaviors", columns=("behavior_key", "text")
    )
    of_known = known.withColumnRenamed("text", "known_text")
    joined = behaviors.join(of_known, "behavior_key", "left").withColumn("text", F.coalesce("text", "known_text"))
    return joined.select(*behaviors.columns)
