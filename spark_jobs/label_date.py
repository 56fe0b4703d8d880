"""From which day on the label of an impression may be used."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_MICROSECONDS = 1_000_000


def with_label_date(impressions: DataFrame, *, label_delay_s: int) -> DataFrame:
    """Add label_date, the first day whose run may use the label, never before dt, and is_late: shown before dt."""
    delayed = F.timestamp_micros(F.unix_micros("shown_at") + label_delay_s * _MICROSECONDS)
    usable_at = F.coalesce("label_known_at", delayed)
    return impressions.withColumns(
        {
            "label_date": F.greatest(F.col("dt"), usable_at.cast("date")),
            "is_late": F.col("shown_at") < F.col("dt").cast("timestamp"),
        }
    )
