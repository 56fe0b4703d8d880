"""The landed rows of one source, whatever format their files have.

Nothing is judged here; the landing contract is applied by judge_*.py.

Unusual: `dt` comes from the folder, never from the row.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.landed_rows import LandedRows, MapFields
from spark_jobs.landing_files import files_in
from spark_jobs.read_csv import read_csv
from spark_jobs.read_json_lines import read_json_lines
from spark_jobs.read_parquet import read_parquet

_NO_ROWS = "dt date, source_file string, raw string, problem string, fields map<string,string>"
_READERS = {".jsonl": read_json_lines, ".csv": read_csv, ".parquet": read_parquet}


def read_landing(spark: SparkSession, folder: str, *, days: Collection[date]) -> list[LandedRows]:
    """Return the rows in `folder`/dt=DAY/*.{jsonl,csv,parquet} for the given days, files that are alike together.

    A day without a folder has no rows. Hidden files and other formats are passed over.
    """
    files = [file for day in sorted(days) for file in files_in(f"{folder}/dt={day}")]
    landed: list[LandedRows] = []
    for suffix, read in _READERS.items():
        chosen = [file for file in files if file.endswith(suffix)]
        if chosen:
            landed += read(spark, chosen)
    return landed or [LandedRows(spark.createDataFrame([], _NO_ROWS), MapFields(F.col("fields")), F.col("raw"))]
