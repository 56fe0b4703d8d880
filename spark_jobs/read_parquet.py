"""Rows of parquet files, every column as the text the contract would have it in.

Unusual: times in nanoseconds, which pandas writes, arrive as whole numbers; in the columns that hold times, numbers
too great to be seconds are taken for them. Files with different schemas are read
apart: Spark would take one file's schema for all of them.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, LongType, MapType, StructType, VariantType

from spark_jobs.landed_file import file_name, landed_day

_TIMES = ("occurred_at", "shown_at", "updated_at", "label_known_at")
_LEAST_NANOSECONDS = 10**15


def read_parquet(spark: SparkSession, files: list[str]) -> list[DataFrame]:
    """Return one frame of LANDED_COLUMNS for each distinct schema of the files. problem: invalid_utf8."""
    by_schema: dict[str, list[str]] = {}
    for file in files:
        by_schema.setdefault(_schema(spark, file), []).append(file)
    return [_as_fields(spark.read.parquet(*group)) for group in by_schema.values()]


def _schema(spark: SparkSession, file: str) -> str:
    """Return the schema in a file's footer, without starting a Spark job for it."""
    jvm, hadoop = spark._jvm, spark._jsc.hadoopConfiguration()
    path = jvm.org.apache.hadoop.fs.Path(file)  # type: ignore[union-attr]
    parquet = jvm.org.apache.parquet.hadoop  # type: ignore[union-attr]
    reader = parquet.ParquetFileReader.open(parquet.util.HadoopInputFile.fromPath(path, hadoop))
    try:
        return str(reader.getFileMetaData().getSchema().toString())
    finally:
        reader.close()


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
