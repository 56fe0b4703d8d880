"""items: landed rows → typed rows, each with the reason it is refused for, if any."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.judge_time import time_problem
from spark_jobs.landed_rows import Canonical, LandedRows, judge_each
from spark_jobs.parse_fields import has_null, identifier

ITEM_CONTENT = ("dt", "item_id", "updated_at", "title", "cat", "num")
"""Two item rows equal in these are the same row."""

_KNOWN = ("item_id", "title", "updated_at")


def judge_items(landed: Sequence[LandedRows], *, late_days: int) -> DataFrame:
    """Return ITEM_CONTENT, with `reason` (null for a good row), `source_file`, `raw` of refused rows, `unknown`."""
    return judge_each(landed, lambda rows, canonical: _judge(rows, canonical, late_days), text="title")


def _judge(landed: LandedRows, canonical: Canonical, late_days: int) -> DataFrame:
    fields = landed.fields
    typed = {
        "item_id": identifier(fields.text("item_id")),
        "updated_at": fields.instant("updated_at"),
        "title": canonical(fields.text("title")),
        "cat": fields.texts("cat_"),
        "num": fields.numbers("num_"),
    }
    reason = F.coalesce(
        F.when(F.col("item_id").isNull(), "missing_id"),
        time_problem(F.col("updated_at"), late_days=late_days),
        F.when(has_null(F.col("num")), "unreadable_number"),
        F.when(F.coalesce("title", F.lit("")) == "", "empty_text"),
    )
    unknown = fields.unknown(known=_KNOWN, prefixes=("cat_", "num_"))
    return landed.judged(typed, reason=reason, unknown=unknown)
