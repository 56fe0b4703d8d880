"""Rows of json lines files, each an object of text fields.

Unusual: a line is parsed inside brackets, as an array that must have exactly one object. `from_json` alone stops after
the first value and would take `{"a": 1} rubbish` for a good row.
"""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.landed_file import file_name, landed_day
from spark_jobs.landed_rows import LandedRows, MapFields

_BYTE_ORDER_MARK = "\ufeff"


def read_json_lines(spark: SparkSession, files: list[str]) -> list[LandedRows]:
    """Return the rows of the files. Blank lines are not rows.

    problem: invalid_utf8, or malformed_json for a line that is not one whole json object.
    """
    lines = spark.read.text(files).select(
        landed_day(files), file_name(), F.ltrim("value", F.lit(_BYTE_ORDER_MARK)).alias("line")
    )
    objects = F.from_json(
        F.concat(F.lit("["), "line", F.lit("]")), "array<map<string,string>>", {"allowSingleQuotes": "false"}
    )
    parsed = lines.where(F.col("line").rlike(r"\S")).withColumn("objects", objects)
    # The closing brace: `{"a": 1}]` would close the bracket that was put around it.
    whole = (
        (F.size("objects") == 1) & F.get("objects", F.lit(0)).isNotNull() & F.rtrim("line", F.lit(" \t")).endswith("}")
    )
    problem = F.when(~F.is_valid_utf8("line"), "invalid_utf8").when(~F.coalesce(whole, F.lit(False)), "malformed_json")
    fields = F.get("objects", F.lit(0))
    repeated = F.size(F.array_distinct(F.map_keys(fields))) < F.size(fields)
    unique = F.when(repeated, F.map_from_entries(F.map_entries(fields))).otherwise(fields)
    rows = parsed.withColumn("problem", problem).select(
        "dt", "source_file", "line", "problem", F.when(F.col("problem").isNull(), unique).alias("fields")
    )
    return [LandedRows(rows, MapFields(F.col("fields")), F.make_valid_utf8("line"))]
