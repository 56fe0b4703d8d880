"""behavior_events: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.canonical_text import canonical_text
from spark_jobs.judge_time import time_problem
from spark_jobs.parse_fields import field, identifier, instant, number, present, unknown_names

EVENT_CONTENT = ("dt", "user_id", "feature", "occurred_at", "text", "item_id", "value")
"""Two events equal in these are the same event; the text stands for its behavior_key."""

_KNOWN = ("user_id", "feature", "occurred_at", "text", "item_id", "value")


def judge_events(landed: DataFrame, *, late_days: int) -> DataFrame:
    """Return EVENT_CONTENT, with `reason` (null for a good row), `source_file`, `raw`, `unknown`."""
    fields = F.col("present")
    rows = landed.withColumn("present", present(F.col("fields"))).select(
        "dt",
        identifier(fields, "user_id").alias("user_id"),
        identifier(fields, "feature").alias("feature"),
        instant(field(fields, "occurred_at")).alias("occurred_at"),
        canonical_text(field(fields, "text")).alias("text"),
        identifier(fields, "item_id").alias("item_id"),
        field(fields, "value").alias("value_text"),
        number(field(fields, "value")).alias("value"),
        "problem",
        "source_file",
        "raw",
        unknown_names(F.col("fields"), known=_KNOWN, prefixes=()).alias("unknown"),
    )
    reason = F.coalesce(
        "problem",
        F.when(F.col("user_id").isNull(), "missing_id"),
        F.when(F.col("feature").isNull(), "missing_feature"),
        time_problem(F.col("occurred_at"), late_days=late_days),
        F.when(F.col("value_text").isNotNull() & F.col("value").isNull(), "unreadable_number"),
        F.when(F.coalesce("text", F.lit("")) == "", "empty_text"),
    )
    return rows.withColumn("reason", reason).select(*EVENT_CONTENT, "reason", "source_file", "raw", "unknown")
