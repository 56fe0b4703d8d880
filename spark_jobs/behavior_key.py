"""The behavior_key of a column of canonical texts, as `bahe_tasks.behavior_key` defines it."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def behavior_key(canonical: Column) -> Column:
    """Return the key of a canonical text: 64 hex digits; null for null and ""."""
    return F.when(canonical != "", F.sha2(canonical, 256))
