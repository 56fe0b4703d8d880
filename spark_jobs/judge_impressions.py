"""impressions: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.judge_time import time_problem
from spark_jobs.parse_fields import (
    field,
    has_null,
    identifier,
    instant,
    number,
    present,
    unknown_names,
    whole_number,
    with_prefix,
    without,
)

IMPRESSION_CONTENT = ("user_id", "item_id", "shown_at", "label", "label_known_at", "labels", "cat", "num")
"""Two impressions of one impression_id must be equal in these, else they are a conflict."""

_KNOWN = ("impression_id", "user_id", "item_id", "shown_at", "label", "label_known_at")
_SECONDS_TO_MICROSECONDS = 1_000_000


def judge_impressions(landed: DataFrame, *, late_days: int) -> DataFrame:
    """Return dt, impression_id, IMPRESSION_CONTENT, with `reason` (null for a good row), `source_file`, `raw`, `unknown`."""
    fields = F.col("present")
    labels = without(with_prefix(fields, "label_"), "known_at")
    rows = landed.withColumn("present", present(F.col("fields"))).select(
        "dt",
        identifier(fields, "impression_id").alias("impression_id"),
        identifier(fields, "user_id").alias("user_id"),
        identifier(fields, "item_id").alias("item_id"),
        instant(field(fields, "shown_at")).alias("shown_at"),
        whole_number(field(fields, "label")).alias("label"),
        field(fields, "label_known_at").isNotNull().alias("has_label_time"),
        instant(field(fields, "label_known_at")).alias("label_known_at"),
        F.transform_values(labels, lambda _, text: whole_number(text)).alias("labels"),
        with_prefix(fields, "cat_").alias("cat"),
        F.transform_values(with_prefix(fields, "num_"), lambda _, text: number(text)).alias("num"),
        "problem",
        "source_file",
        "raw",
        unknown_names(F.col("fields"), known=_KNOWN, prefixes=("label_", "cat_", "num_")).alias("unknown"),
    )
    is_binary = F.coalesce(F.col("label").isin(0, 1), F.lit(False))
    reason = F.coalesce(
        "problem",
        F.when(F.col("impression_id").isNull() | F.col("user_id").isNull() | F.col("item_id").isNull(), "missing_id"),
        time_problem(F.col("shown_at"), late_days=late_days),
        F.when(F.col("has_label_time") & F.col("label_known_at").isNull(), "unreadable_time"),
        F.when(~is_binary | has_null(F.col("labels")), "bad_label"),
        F.when(has_null(F.col("num")), "unreadable_number"),
    )
    judged = rows.withColumn("reason", reason)
    return judged.select("dt", "impression_id", *IMPRESSION_CONTENT, "reason", "source_file", "raw", "unknown")


def with_label_date(impressions: DataFrame, *, label_delay_s: int) -> DataFrame:
    """Add label_date, the first day whose run may use the label, never before dt, and is_late: shown before dt."""
    delayed = F.timestamp_micros(F.unix_micros("shown_at") + label_delay_s * _SECONDS_TO_MICROSECONDS)
    usable_at = F.coalesce("label_known_at", delayed)
    return impressions.withColumns(
        {
            "label_date": F.greatest(F.col("dt"), usable_at.cast("date")),
            "is_late": F.col("shown_at") < F.col("dt").cast("timestamp"),
        }
    )
