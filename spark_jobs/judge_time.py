"""Whether a row's own time fits the day it landed on (docs/contract.md)."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def time_problem(time: Column, *, late_days: int) -> Column:
    """Return unreadable_time, time_after_day, too_late, or null. `time` null means unreadable or missing."""
    earliest = F.date_sub("dt", late_days).cast("timestamp")
    end = F.date_add("dt", 1).cast("timestamp")
    return (
        F.when(time.isNull(), "unreadable_time").when(time >= end, "time_after_day").when(time < earliest, "too_late")
    )
