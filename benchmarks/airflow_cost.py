"""What running a day as tasks of Airflow costs beside the same day in one process.

    python -m benchmarks.airflow_cost [--days 4] [--json] [--small]

Two homes get the same synthetic log of few users; `bahe backfill` runs all its days, in one by `--engine inline`, in the other by
`--engine airflow`, the embedded scheduler, where each task is a process of its own. Means are over the days after the
first; with `--small` there is one.

Rows: a task, its seconds inline, its seconds as a task of Airflow (from the start of its process to its end) and what the
process adds: Python's imports, Spark's session, the connections of a fresh process. Figures, seconds a task:
`process_s` that its process adds, `scheduling_s` between tasks, in which Airflow runs none, and `overhead_s`, their sum;
`inline_day_s` and `airflow_day_s` are whole days.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from bahe_tasks.engines.day_outcome import TASK_ORDER
from benchmarks.kit.document import Document
from benchmarks.kit.settings import AsJson

FIRST = date(2024, 1, 1)
_USERS = 60


def days_of(home: Path, engine: str, *, days: int) -> list[dict[str, Any]]:
    """Make a home with the log and run all its days; return what `bahe backfill` says of each."""
    _bahe(home, "init")
    last = FIRST + timedelta(days=days - 1)
    made = ("--days", str(days), "--users", str(_USERS), "--first-day", str(FIRST))
    _bahe(home, "synthesize", str(home / "landing"), *made)
    return json.loads(_bahe(home, "backfill", str(FIRST), str(last), "--engine", engine, "--json"))["days"]


def _bahe(home: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "BAHE_LANDING"}
    command = [str(Path(sys.executable).with_name("bahe")), *arguments]
    environment["BAHE_HOME"] = str(home)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def summarise(inline: list[dict[str, Any]], airflow: list[dict[str, Any]]) -> Document:
    """Return rows by task and the figures, of the days after the first if there are any."""
    document = Document("airflow_cost")
    of_engines = [days[1:] or days for days in (inline, airflow)]
    for task in TASK_ORDER:
        alone, in_airflow = (mean(day["task_seconds"].get(task, 0.0) for day in days) for days in of_engines)
        row = {"task": task, "inline_s": alone, "airflow_s": in_airflow, "process_s": in_airflow - alone}
        document.rows.append(row)
    inline_day_s, airflow_day_s = (mean(day["seconds"] for day in days) for days in of_engines)
    in_tasks = sum(row["airflow_s"] for row in document.rows)
    document.figures = {
        "process_s": mean(row["process_s"] for row in document.rows),
        "scheduling_s": (airflow_day_s - in_tasks) / len(TASK_ORDER),
        "overhead_s": (airflow_day_s - inline_day_s) / len(TASK_ORDER),
        "inline_day_s": inline_day_s,
        "airflow_day_s": airflow_day_s,
    }
    return document


def main(
    days: Annotated[int, typer.Option(min=1, help="Days of the log.")] = 4,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="One day.")] = False,
) -> None:
    """Run the same days inline and in the embedded Airflow."""
    with tempfile.TemporaryDirectory(prefix="bahe-airflow-cost-") as scratch:
        engines = ("inline", "airflow")
        inline, airflow = (days_of(Path(scratch, engine), engine, days=1 if small else days) for engine in engines)
    summarise(inline, airflow).show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
