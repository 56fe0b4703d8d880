"""impressions: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.judge_time import time_problem
from spark_jobs.landed_rows import LandedRows
from spark_jobs.parse_fields import has_null, identifier, whole, without

IMPRESSION_CONTENT = ("user_id", "item_id", "shown_at", "label", "label_known_at", "labels", "cat", "num")
"""Two impressions of one impression_id must be equal in these, else they are a conflict."""

_KNOWN = ("impression_id", "user_id", "item_id", "shown_at", "label", "label_known_at")
_SECONDS_TO_MICROSECONDS = 1_000_000


def judge_impressions(landed: Sequence[LandedRows], *, late_days: int) -> DataFrame:
    """Return dt, impression_id, IMPRESSION_CONTENT, `reason` (null for a good row), `source_file`, `raw`, `unknown`."""
    return functools.reduce(DataFrame.union, [_judge(rows, late_days) for rows in landed])


def _judge(landed: LandedRows, late_days: int) -> DataFrame:
    fields = landed.fields
    typed = {
        "impression_id": identifier(fields.text("impression_id")),
        "user_id": identifier(fields.text("user_id")),
        "item_id": identifier(fields.text("item_id")),
        "shown_at": fields.instant("shown_at"),
        "label": whole(fields.number("label")),
        "label_known_at": fields.instant("label_known_at"),
        "labels": F.transform_values(without(fields.numbers("label_"), "known_at"), lambda _, value: whole(value)),
        "cat": fields.texts("cat_"),
        "num": fields.numbers("num_"),
    }
    is_binary = F.coalesce(F.col("label").isin(0, 1), F.lit(False))
    reason = F.coalesce(
        F.when(F.col("impression_id").isNull() | F.col("user_id").isNull() | F.col("item_id").isNull(), "missing_id"),
        time_problem(F.col("shown_at"), late_days=late_days),
        F.when(fields.text("label_known_at").isNotNull() & F.col("label_known_at").isNull(), "unreadable_time"),
        F.when(~is_binary | has_null(F.col("labels")), "bad_label"),
        F.when(has_null(F.col("num")), "unreadable_number"),
    )
    unknown = fields.unknown(known=_KNOWN, prefixes=("label_", "cat_", "num_"))
    return landed.judged(typed, reason=reason, unknown=unknown, keep_raw=True)


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
