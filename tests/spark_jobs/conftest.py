"""A landing folder written row by row in each format, and the plan of a run over it."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.config import LandingConfig, NumbersConfig, SequencesConfig, SparkConfig
from bahe_tasks.schemas import SOURCES
from spark_jobs.dedup_behaviors import DedupPlan
from spark_jobs.session import FOR_MANY_DAYS, spark_session


class Landing:
    """A landing folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raw(self, source: str, day: date, name: str, content: bytes) -> None:
        """Write a file as it is."""
        partition = self.folder / source / f"dt={day}"
        partition.mkdir(parents=True, exist_ok=True)
        (partition / name).write_bytes(content)

    def rows(self, source: str, day: date, rows: list[dict], *, form: str = "jsonl", name: str = "part-0") -> None:
        """Write rows in one of the three formats; a csv or parquet file has the columns of all rows."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if form == "jsonl":
            content = "".join(json.dumps(row) + "\n" for row in rows).encode()
            self.raw(source, day, f"{name}.jsonl", content)
        elif form == "csv":
            self.raw(source, day, f"{name}.csv", b"")
            with (self.folder / source / f"dt={day}" / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
        else:
            self.raw(source, day, f"{name}.parquet", b"")
            table = pa.table({c: pa.array([row.get(c) for row in rows]) for c in columns})
            pq.write_table(table, self.folder / source / f"dt={day}" / f"{name}.parquet")


@pytest.fixture(scope="session")
def spark():
    """One Spark session for all tests: starting a JVM is what costs."""
    return spark_session(SparkConfig(driver_memory="1g", jvm_options=FOR_MANY_DAYS), app_name="tests")


@pytest.fixture(scope="session")
def new_landing():
    """How a test makes a landing folder of its own."""
    return Landing


@pytest.fixture
def landing(tmp_path):
    """An empty landing folder."""
    return Landing(tmp_path / "landing")


@pytest.fixture(scope="session")
def plan_of():
    """How a test makes the plan of a run."""
    return _plan_of


def _plan_of(
    landing: Landing, tables_dir: Path, day: date, *, catch_up: dict[str, list[date]] | None = None, **changes
) -> DedupPlan:
    """Return the plan of a run of `day`; `catch_up` names earlier partitions to take in, by source."""
    settings = {
        "day": day,
        "tables_dir": str(tables_dir),
        "landing_dir": str(landing.folder),
        "ingest": {s: {d: f"{s}-{d}" for d in [*(catch_up or {}).get(s, []), day]} for s in SOURCES},
        "excluded_days": frozenset(),
        "encoder_version": "enc-test",
        "needed_from": date(2024, 1, 1),
        "landing": LandingConfig(),
        "sequences": SequencesConfig(),
        "numbers": NumbersConfig(),
        "state_days": (),
        "is_small": True,
        "input_fingerprint": f"stage-{day}",
    }
    return DedupPlan(**{**settings, **changes})
