"""Rows of parquet files, every column as the text the contract would have it in.

Unusual: times in nanoseconds, which pandas writes, arrive as whole numbers; in the columns that hold times, numbers
too great to be seconds are taken for them. Files whose column types disagree are read apart.
"""

from __future__ import annotations

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, LongType, MapType, StructType, VariantType

from spark_jobs.landed_file import file_name, landed_day

_TIMES = ("occurred_at", "shown_at", "updated_at", "label_known_at")
_LEAST_NANOSECONDS = 10**15


def read_parquet(spark: SparkSession, files: list[str]) -> list[DataFrame]:
    """Return frames of LANDED_COLUMNS of the files. problem: invalid_utf8."""
    try:
        frames = [spark.read.parquet(*files, mergeSchema=True) if len(files) > 1 else spark.read.parquet(*files)]
    except PySparkException:
        frames = [spark.read.parquet(file) for file in files]
    return [_as_fields(frame) for frame in frames]


def _as_fields(rows: DataFrame) -> DataFrame:
    names = [field.name for field in rows.schema.fields]
    texts = [_as_text(F.col(f"`{field.name}`"), field.name, field.dataType) for field in rows.schema.fields]
    landed = rows.select(landed_day(), file_name(), F.array(*texts).alias("texts"))
    fields = F.map_from_arrays(F.array(*[F.lit(name) for name in names]), F.col("texts"))
    valid = F.forall("texts", lambda text: F.coalesce(F.is_valid_utf8(text), F.lit(True)))
    return landed.select(
        "dt",
        "source_file",
        F.to_json(
            F.map_from_arrays(F.array(*[F.lit(n) for n in names]), F.transform("texts", F.make_valid_utf8))
        ).alias("raw"),
        F.when(~valid, "invalid_utf8").alias("problem"),
        F.when(valid, fields).alias("fields"),
    )


def _as_text(column: Column, name: str, kind: DataType) -> Column:
    if isinstance(kind, ArrayType | MapType | StructType | VariantType):
        return F.to_json(column)
    if name in _TIMES and isinstance(kind, LongType):
        nanoseconds = (column / F.lit(10**9).cast("decimal(10,0)")).cast("string")
        return F.when(F.abs(column) >= _LEAST_NANOSECONDS, nanoseconds).otherwise(column.cast("string"))
    return column.cast("string")
