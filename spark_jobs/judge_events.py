"""behavior_events: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.judge_time import time_problem
from spark_jobs.landed_rows import Canonical, LandedRows, judge_each
from spark_jobs.parse_fields import identifier

EVENT_CONTENT = ("dt", "user_id", "feature", "occurred_at", "text", "item_id", "value")
"""Two events equal in these are the same event; the text stands for its behavior_key."""

_KNOWN = ("user_id", "feature", "occurred_at", "text", "item_id", "value")


def judge_events(landed: Sequence[LandedRows], *, late_days: int) -> DataFrame:
    """Return EVENT_CONTENT, with `reason` (null for a good row), `source_file`, `raw` of refused rows, `unknown`."""
    return judge_each(landed, lambda rows, canonical: _judge(rows, canonical, late_days), text="text")


def _judge(landed: LandedRows, canonical: Canonical, late_days: int) -> DataFrame:
    fields = landed.fields
    typed = {
        "user_id": identifier(fields.text("user_id")),
        "feature": identifier(fields.text("feature")),
        "occurred_at": fields.instant("occurred_at"),
        "text": canonical(fields.text("text")),
        "item_id": identifier(fields.text("item_id")),
        "value": fields.number("value"),
    }
    reason = F.coalesce(
        F.when(F.col("user_id").isNull(), "missing_id"),
        F.when(F.col("feature").isNull(), "missing_feature"),
        time_problem(F.col("occurred_at"), late_days=late_days),
        F.when(fields.text("value").isNotNull() & F.col("value").isNull(), "unreadable_number"),
        F.when(F.coalesce("text", F.lit("")) == "", "empty_text"),
    )
    return landed.judged(typed, reason=reason, unknown=fields.unknown(known=_KNOWN, prefixes=()))
