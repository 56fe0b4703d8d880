"""Rows of parquet files. Texts, times and numbers are read by their type; what has another one by its text.

Unusual: times in nanoseconds, which pandas writes, arrive as whole numbers; in the columns that hold times, numbers
too great to be seconds are taken for them. Files with different schemas are read
apart: Spark would take one file's schema for all of them.
"""

from __future__ import annotations

import functools
from operator import or_

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StructType,
    TimestampType,
    VariantType,
)

from spark_jobs.landed_file import file_name, landed_day
from spark_jobs.landed_rows import ColumnFields, FileColumn, LandedRows
from spark_jobs.landing_files import heads_of

_TIMES = ("occurred_at", "shown_at", "updated_at", "label_known_at")
_FEW_FILES = 500
"""Opening more once again costs more than passing their rows through Python."""
_LEAST_NANOSECONDS = 10**15
_EXACT_IN_A_DOUBLE = (ByteType, ShortType, IntegerType, DoubleType)


def read_parquet(spark: SparkSession, files: list[str]) -> list[LandedRows]:
    """Return the rows for each distinct schema of the files. problem: invalid_utf8."""
    by_schema: dict[str, list[str]] = {}
    for file, schema in zip(files, heads_of(files, _schema), strict=True):
        by_schema.setdefault(schema, []).append(file)
    return [_as_landed(spark.read.parquet(*group), group) for group in by_schema.values()]


def _schema(file: pa.NativeFile) -> str:
    """Return the schema in a file's footer: physical and logical types, of which Spark's follow."""
    return str(pq.read_metadata(file).schema).partition("\n")[2]  # the first line has an address in memory


def _as_landed(rows: DataFrame, files: list[str]) -> LandedRows:
    kinds = {field.name: field.dataType for field in rows.schema.fields}
    places = {name: f"c{i}" for i, name in enumerate(kinds)}
    columns = {name: _column(F.col(place), name, kinds[name]) for name, place in places.items()}
    # What was made of a number or a time is valid; a text, and a text inside a list, need not be.
    texts = [column.text for column in columns.values() if column.instant is None and column.number is None]
    invalid = [~F.coalesce(F.is_valid_utf8(text), F.lit(True)) for text in texts]
    is_valid = ~functools.reduce(or_, invalid, F.lit(False))
    landed = rows.select(
        landed_day(files), file_name(), *[F.col(f"`{name}`").alias(place) for name, place in places.items()]
    )
    return LandedRows(
        landed.withColumn("problem", F.when(~is_valid, "invalid_utf8")),
        ColumnFields(columns, is_read=F.col("problem").isNull()),
        _raw({name: column.text for name, column in columns.items()}),
        may_be_read_twice=len(files) <= _FEW_FILES,
    )


def _raw(texts: dict[str, Column]) -> Column:
    """The row as one json object of texts."""
    valid = F.array(*[F.make_valid_utf8(text) for text in texts.values()])
    return F.to_json(F.map_from_arrays(F.array(*[F.lit(name) for name in texts]), valid))


def _column(column: Column, name: str, kind: DataType) -> FileColumn:
    text = column.cast("string")
    if isinstance(kind, ArrayType | MapType | StructType | VariantType):
        return FileColumn(F.to_json(column))
    if isinstance(kind, LongType) and name in _TIMES:
        nanoseconds = (column / F.lit(10**9).cast("decimal(10,0)")).cast("string")
        return FileColumn(F.when(F.abs(column) >= _LEAST_NANOSECONDS, nanoseconds).otherwise(text))
    if isinstance(kind, TimestampType) and name in _TIMES:
        return FileColumn(text, instant=column)
    if isinstance(kind, _EXACT_IN_A_DOUBLE) and name not in _TIMES:
        return FileColumn(text, number=column.cast("double"))
    return FileColumn(text)
