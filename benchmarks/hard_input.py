"""What days that are hard on the Spark job cost: ten thousand tiny files, and long histories for many impressions.

    python -m benchmarks.hard_input [--files 10000] [--impressions 100000] [--driver-memory 2g] [--json] [--small]

`files`: the whole job (`spark_jobs.dedup_behaviors`) over a day of events in so many files of one row each, in each format,
and over the same rows in one file. `sequences`: the whole job over a day of so many impressions, four a user, with 50
behaviors of the day before in each of 6 features, in buckets as a day of many rows. The session is started beforehand and
warmed up by the one file.

Rows: case, rows, files, seconds, peak_mb (Spark's JVM and its Python workers, sampled). Figures: `seconds_FORMAT` and
`seconds_a_thousand_files` (of the slowest format); `seconds_sequences`, `peak_mb_sequences`, and
`behaviors_per_s` of them.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from pyspark.sql import SparkSession

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import SparkConfig
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_batches
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions
from benchmarks.dedup_cost import plan_of
from benchmarks.kit.document import Document
from benchmarks.kit.landed_day import DAY
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.settings import AsJson
from spark_jobs.dedup_behaviors import dedup_behaviors
from spark_jobs.session import spark_session, stop_spark_session

FORMATS = ("jsonl", "csv", "parquet")
FEATURES, BEHAVIORS, IMPRESSIONS_A_USER = 6, 50, 4
_TEXTS = 100_003
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


def measure_sequences(spark: SparkSession, scratch: Path, *, num_impressions: int) -> dict[str, Any]:
    """Return a row for a day of so many impressions, all of long histories. Raises `RuntimeError` where behaviors are lost."""
    num_users = max(num_impressions // IMPRESSIONS_A_USER, 1)
    landing, tables_dir = scratch / "sequences" / "landing", scratch / "sequences" / "tables"
    land_impressions(landing, num_users)
    write_histories(tables_dir, num_users)
    # As on the day after a day with a state: histories are read, and nothing but the day is counted.
    plan = replace(plan_of(landing, tables_dir), state_days=(DAY - timedelta(days=1),))
    with PeakMemory(of_children=True) as memory:
        began = perf_counter()
        dedup_behaviors(spark, plan)
        seconds = perf_counter() - began
    rows, behaviors = num_users * IMPRESSIONS_A_USER, 0
    for batch in read_batches(tables_dir, "impressions", columns=["sequence_ends"]):
        behaviors += pc.sum(batch["sequence_ends"].items).as_py() or 0
    if behaviors != rows * FEATURES * BEHAVIORS:
        raise RuntimeError(f"{rows} impressions read {behaviors} behaviors, not {FEATURES * BEHAVIORS} each")
    return _row("sequences", rows, 0, seconds, memory)


def land_impressions(landing: Path, num_users: int) -> None:
    """Write a day of IMPRESSIONS_A_USER impressions of each user."""
    number = np.arange(num_users * IMPRESSIONS_A_USER)
    folder = landing / "impressions" / f"dt={DAY}"
    folder.mkdir(parents=True)
    rows = pa.table(
        {
            "impression_id": pa.array(number).cast(pa.string()),
            "user_id": _texts("u", number % num_users),
            "item_id": _texts("i", number % 1000),
            "shown_at": pa.repeat(f"{DAY}T12:00:00Z", len(number)),
            "label": pa.array(number % 2),
        }
    )
    pq.write_table(rows, folder / "part-0.parquet")


def write_histories(tables_dir: Path, num_users: int) -> None:
    """Write BEHAVIORS events of each user and feature, as the day before left them."""
    before = DAY - timedelta(days=1)
    first_us = int(datetime(before.year, before.month, before.day, tzinfo=UTC).timestamp()) * 1_000_000
    keys = pa.array([behavior_key(f"text {n}") for n in range(_TEXTS)])
    texts = pa.array([f"text {n}" for n in range(_TEXTS)])
    schema = arrow_schema("behavior_events")

    def rows() -> Iterator[pa.Table]:
        for number in range(FEATURES * BEHAVIORS):
            text = pa.array((np.arange(num_users) * 7 + number) % _TEXTS)
            columns = {
                "dt": pa.repeat(pa.scalar(before), num_users),
                "user_id": _texts("u", np.arange(num_users)),
                "feature": pa.repeat(f"f{number % FEATURES}", num_users),
                "occurred_at": pa.repeat(first_us + number * 60_000_000, num_users).cast(pa.timestamp("us", "UTC")),
                "behavior_key": keys.take(text),
                "item_id": pa.nulls(num_users, pa.string()),
                "value": pa.repeat(1.0, num_users),
                "text": texts.take(text),
            }
            yield pa.table([columns[name] for name in schema.names], schema=schema)

    replace_partitions(tables_dir, "behavior_events", rows, predicate=f"dt = '{before}'", partitions={})
    append_rows(tables_dir, "atomic_behaviors", pa.table({"behavior_key": keys, "text": texts}), partitions={})


def _texts(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(numbers).cast(pa.string()), "")


def _row(case: str, rows: int, files: int, seconds: float, memory: PeakMemory) -> dict[str, Any]:
    return {"case": case, "rows": rows, "files": files, "seconds": seconds, "peak_mb": memory.peak_mb}


def run(scratch: Path, *, num_files: int, num_impressions: int, driver_memory: str) -> Document:
    """Measure everything in one Spark session."""
    spark = spark_session(SparkConfig(driver_memory=driver_memory), app_name="hard_input")
    document = Document("hard_input")
    document.rows = measure_files(spark, scratch, num_files=num_files)
    slowest = max(row["seconds"] for row in document.rows)
    document.rows.append(measure_sequences(spark, scratch, num_impressions=num_impressions))
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
    as_json: AsJson = False,
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
