"""Where a landed row came from: columns every format has in common."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyspark.sql import Column
from pyspark.sql import functions as F

_DAY = r"/dt=(\d{4}-\d{2}-\d{2})/[^/]*$"


def landed_day(files: Iterable[str]) -> Column:
    """The day in the folder name dt=YYYY-MM-DD of the file a row was read from, one of `files`."""
    days = {match[1] for match in map(re.compile(_DAY).search, files) if match}
    if len(days) == 1:  # as for most runs: then no row needs a look at its path
        return F.lit(days.pop()).cast("date").alias("dt")
    return F.regexp_extract("_metadata.file_path", _DAY, 1).cast("date").alias("dt")


def file_name() -> Column:
    """The name, without folders, of the file a row was read from."""
    return F.col("_metadata.file_name").alias("source_file")
