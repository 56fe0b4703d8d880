"""items: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.canonical_text import canonical_text
from spark_jobs.judge_time import time_problem
from spark_jobs.parse_fields import field, has_null, identifier, instant, number, present, unknown_names, with_prefix

ITEM_CONTENT = ("dt", "item_id", "updated_at", "title", "cat", "num")
"""Two item rows equal in these are the same row."""

_KNOWN = ("item_id", "title", "updated_at")


def judge_items(landed: DataFrame, *, late_days: int) -> DataFrame:
    """Return ITEM_CONTENT, with `reason` (null for a good row), `source_file`, `raw`, `unknown`."""
    fields = F.col("present")
    rows = landed.withColumn("present", present(F.col("fields"))).select(
        "dt",
        identifier(fields, "item_id").alias("item_id"),
        instant(field(fields, "updated_at")).alias("updated_at"),
        canonical_text(field(fields, "title")).alias("title"),
        with_prefix(fields, "cat_").alias("cat"),
        F.transform_values(with_prefix(fields, "num_"), lambda _, text: number(text)).alias("num"),
        "problem",
        "source_file",
        "raw",
        unknown_names(F.col("fields"), known=_KNOWN, prefixes=("cat_", "num_")).alias("unknown"),
    )
    reason = F.coalesce(
        "problem",
        F.when(F.col("item_id").isNull(), "missing_id"),
        time_problem(F.col("updated_at"), late_days=late_days),
        F.when(has_null(F.col("num")), "unreadable_number"),
        F.when(F.coalesce("title", F.lit("")) == "", "empty_text"),
    )
    return rows.withColumn("reason", reason).select(*ITEM_CONTENT, "reason", "source_file", "raw", "unknown")
