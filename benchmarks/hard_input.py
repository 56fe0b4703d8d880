"""What days that are hard on the Spark job cost: ten thousand tiny files, and long histories for many impressions.

    python -m benchmarks.hard_input [--files 10000] [--impressions 100000] [--driver-memory 2g] [--json] [--small]

`files`: the whole job (`spark_jobs.dedup_behaviors`) over a day of events in so many files of one row each, in each format,
and over the same rows in one file. `sequences`: the histories of so many impressions, four a user, with 50 behaviors in
each of 6 features, built and lined up with their impressions (`spark_jobs.build_sequences`) and held for what comes
after, as the job holds them. The session is started beforehand and warmed up by the one file.

Rows: case, rows, files, seconds, peak_mb (Spark's JVM and its Python workers, sampled). Figures: `seconds_FORMAT` and
`seconds_a_thousand_files` (of the slowest format); `seconds_sequences`, `peak_mb_sequences`, and
`behaviors_per_s` of them.
"""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bahe_tasks.config import SequencesConfig, SparkConfig
from benchmarks.dedup_cost import plan_of
from benchmarks.kit.document import Document
from benchmarks.kit.landed_day import DAY
from benchmarks.kit.peak_memory import PeakMemory
from spark_jobs.build_sequences import build_sequences, sequence_ends
from spark_jobs.dedup_behaviors import dedup_behaviors
from spark_jobs.session import spark_session, stop_spark_session

FORMATS = ("jsonl", "csv", "parquet")
FEATURES, BEHAVIORS, IMPRESSIONS_A_USER = 6, 50, 4
ONE_FILE = "one jsonl"


def land_files(landing: Path, *, form: str, num_files: int, rows_a_file: int = 1) -> None:
    """Write a day of events in files of so many rows."""
    folder = landing / "behavior_events" / f"dt={DAY}"
    folder.mkdir(parents=True)
    for number in range(num_files):
        rows = [
            {
                "user_id": f"u{n % 97}",
                "feature": "bills",
                "occurred_at": f"{DAY}T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                "text": f"text {n % 1000}",
            }
            for n in range(number * rows_a_file, (number + 1) * rows_a_file)
        ]
        file = folder / f"part-{number:05}.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        elif form == "csv":
            with file.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def measure_files(spark: SparkSession, scratch: Path, *, num_files: int) -> list[dict[str, Any]]:
    """Return a row for the day in one file, then for each format. Raises `RuntimeError` where events are lost."""
    measured = []
    for case in (ONE_FILE, *FORMATS):
        landing, tables_dir = scratch / case / "landing", scratch / case / "tables"
        files = 1 if case == ONE_FILE else num_files
        land_files(landing, form=case.split()[-1], num_files=files, rows_a_file=num_files // files)
        plan = replace(plan_of(landing, tables_dir), is_small=True)
        with PeakMemory(of_children=True) as memory:
            began = perf_counter()
            counts = dedup_behaviors(spark, plan)
            seconds = perf_counter() - began
        if counts["behavior_events"]["rows"] != num_files:
            raise RuntimeError(f"{case}: {counts['behavior_events']} of {num_files} events")
        measured.append(_row(case, num_files, files, seconds, memory))
    return measured


def measure_sequences(spark: SparkSession, *, num_impressions: int) -> dict[str, Any]:
    """Return a row for the histories of so many impressions. Raises `RuntimeError` where behaviors are lost."""
    num_users = max(num_impressions // IMPRESSIONS_A_USER, 1)
    with PeakMemory(of_children=True) as memory:
        began = perf_counter()
        impressions = _impressions(spark, num_users)
        events = _events(spark, num_users)
        sequences = build_sequences(events, impressions, sequences=SequencesConfig())
        sequences = sequences.localCheckpoint(storageLevel=StorageLevel.MEMORY_AND_DISK)
        ends = sequence_ends(impressions, sequences, settings=SequencesConfig())
        read = ends.select(F.aggregate(F.map_values("sequence_ends"), F.lit(0), lambda total, end: total + end))
        behaviors = read.toDF("behaviors").agg(F.sum("behaviors")).collect()[0][0]
        seconds = perf_counter() - began
    rows = num_users * IMPRESSIONS_A_USER
    if behaviors != rows * FEATURES * BEHAVIORS:
        raise RuntimeError(f"{rows} impressions read {behaviors} behaviors, not {FEATURES * BEHAVIORS} each")
    return _row("sequences", rows, 0, seconds, memory)


def _impressions(spark: SparkSession, num_users: int) -> DataFrame:
    rows = spark.range(num_users * IMPRESSIONS_A_USER)
    shown_at = F.lit(str(DAY)).cast("timestamp") + F.expr("make_interval(0, 0, 0, 0, 12)")
    return rows.select(
        F.col("id").cast("string").alias("impression_id"),
        F.concat(F.lit("u"), F.col("id") % num_users).alias("user_id"),
        shown_at.alias("shown_at"),
    )


def _events(spark: SparkSession, num_users: int) -> DataFrame:
    rows = spark.range(num_users * FEATURES * BEHAVIORS)
    number = F.floor(F.col("id") / num_users)
    seconds_before = F.lit(str(DAY)).cast("timestamp").cast("bigint") - number * 60
    return rows.select(
        F.concat(F.lit("u"), F.col("id") % num_users).alias("user_id"),
        F.concat(F.lit("f"), number % FEATURES).alias("feature"),
        F.timestamp_seconds(seconds_before).alias("occurred_at"),
        F.sha2((F.col("id") % 100_003).cast("string"), 256).alias("behavior_key"),
        F.lit(1.0).alias("value"),
        F.lit(None).cast("string").alias("item_id"),
    )


def _row(case: str, rows: int, files: int, seconds: float, memory: PeakMemory) -> dict[str, Any]:
    return {"case": case, "rows": rows, "files": files, "seconds": seconds, "peak_mb": memory.peak_mb}


def run(scratch: Path, *, num_files: int, num_impressions: int, driver_memory: str) -> Document:
    """Measure everything in one Spark session."""
    spark = spark_session(SparkConfig(driver_memory=driver_memory, shuffle_partitions=4), app_name="hard_input")
    document = Document("hard_input")
    document.rows = measure_files(spark, scratch, num_files=num_files)
    slowest = max(row["seconds"] for row in document.rows)
    document.rows.append(measure_sequences(spark, num_impressions=num_impressions))
    of = {row["case"]: row for row in document.rows}
    sequences = of["sequences"]
    document.figures = {
        **{f"seconds_{form}": of[form]["seconds"] for form in FORMATS},
        "seconds_a_thousand_files": slowest / num_files * 1000,
        "seconds_sequences": sequences["seconds"],
        "peak_mb_sequences": sequences["peak_mb"],
        "behaviors_per_s": sequences["rows"] // IMPRESSIONS_A_USER * FEATURES * BEHAVIORS / sequences["seconds"],
    }
    return document


def main(
    files: Annotated[int, typer.Option(min=1, help="Files of one row each.")] = 10_000,
    impressions: Annotated[int, typer.Option(min=4, help="Impressions with histories.")] = 100_000,
    driver_memory: Annotated[str, typer.Option(help="Memory of Spark's JVM.")] = "2g",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    small: Annotated[bool, typer.Option(help="20 files, 400 impressions.")] = False,
) -> None:
    """Time days that are hard on the Spark job."""
    with tempfile.TemporaryDirectory(prefix="bahe-hard-input-") as temporary:
        document = run(
            Path(temporary),
            num_files=20 if small else files,
            num_impressions=400 if small else impressions,
            driver_memory=driver_memory,
        )
        stop_spark_session()
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
