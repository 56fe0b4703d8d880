"""Where a landed row came from: columns every format has in common."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def landed_day() -> Column:
    """The day in the folder name dt=YYYY-MM-DD of the file a row was read from."""
    return F.regexp_extract("_metadata.file_path", r"/dt=(\d{4}-\d{2}-\d{2})/[^/]*$", 1).cast("date").alias("dt")


def file_name() -> Column:
    """The name, without folders, of the file a row was read from."""
    return F.col("_metadata.file_name").alias("source_file")
