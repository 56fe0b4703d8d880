"""Rows of csv files with a header line; quotes are doubled inside quotes, values may span lines.

Unusual: files are read as ISO-8859-1, which maps every byte to a character, and the bytes are then taken as UTF-8, so
that bad bytes are seen instead of silently replaced. Files with different headers are read apart: Spark would apply
the first file's header to all of them by position.
"""

from __future__ import annotations

import csv
import io

import pyarrow as pa
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from spark_jobs.landed_file import file_name, landed_day
from spark_jobs.landed_rows import ColumnFields, FileColumn, LandedRows
from spark_jobs.landing_files import heads_of

_CORRUPT = "corrupt"


def read_csv(spark: SparkSession, files: list[str]) -> list[LandedRows]:
    """Return the rows for each distinct header of the files. Empty lines are not rows.

    problem: invalid_utf8, or malformed_csv for a row with more or fewer values than the header has names.
    """
    by_header: dict[tuple[str, ...], list[str]] = {}
    for file, header in zip(files, heads_of(files, _header), strict=True):
        if header:
            by_header.setdefault(header, []).append(file)
    return [_read_with_header(spark, header, group) for header, group in by_header.items()]


def _read_with_header(spark: SparkSession, header: tuple[str, ...], files: list[str]) -> LandedRows:
    positions = [f"c{i}" for i in range(len(header))]
    schema = StructType([StructField(name, StringType()) for name in [*positions, _CORRUPT]])
    rows = spark.read.csv(
        files,
        schema=schema,
        header=True,
        multiLine=True,
        escape='"',
        encoding="ISO-8859-1",
        columnNameOfCorruptRecord=_CORRUPT,
    )
    first_of_name = {name: f"c{i}" for i, name in reversed(list(enumerate(header)))}
    raw = _as_utf8(F.coalesce(F.col(_CORRUPT), F.to_csv(F.struct(*positions), {"escape": '"'})))
    decoded = rows.select(
        landed_day(files),
        file_name(),
        raw.alias("raw"),
        F.col(_CORRUPT),
        *[_as_utf8(F.col(c)).alias(c) for c in positions],
    )
    problem = F.when(~F.is_valid_utf8("raw"), "invalid_utf8").when(F.col(_CORRUPT).isNotNull(), "malformed_csv")
    fields = ColumnFields(
        {name: FileColumn(F.col(place)) for name, place in first_of_name.items()}, is_read=F.col("problem").isNull()
    )
    return LandedRows(decoded.withColumn("problem", problem), fields, F.make_valid_utf8("raw"))


def _as_utf8(latin: Column) -> Column:
    return F.encode(latin, "ISO-8859-1").cast("string")


def _header(file: pa.NativeFile) -> tuple[str, ...]:
    """Return the names in the first line that is not blank, or nothing for an empty file."""
    lines = io.TextIOWrapper(file, encoding="iso-8859-1", newline=None)
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        return ()
    text = line.rstrip("\n").encode("iso-8859-1").decode("utf-8", errors="replace").lstrip("\ufeff")
    return tuple(name.strip() for name in next(csv.reader([text])))
