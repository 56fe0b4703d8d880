"""The scheduler that has loaded what its tasks import, which are forks of it."""

import subprocess
import sys

from bahe_tasks.engines import airflow_scheduler

FORKED = """
import os, signal, sys, threading
from pathlib import Path

from bahe_tasks.engines.airflow_scheduler import load_what_tasks_import
from bahe_tasks.engines.day_outcome import TASK_ORDER

load_what_tasks_import()
import torch

missing = [name for name in TASK_ORDER if f"bahe_tasks.stages.{name}" not in sys.modules]
assert not missing, missing
assert {"torch", "transformers", "mlflow", "great_expectations", "pyspark"} <= sys.modules.keys()
assert threading.enumerate() == [threading.main_thread()]
assert not torch.cuda.is_initialized()
task = os.fork()
if not task:
    signal.alarm(60)  # a fork that waits for a thread it does not have would wait for ever
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    big = torch.ones(600, 600)
    assert float((big @ big).sum()) == 600**3
    write_deltalake(sys.argv[1], pa.table({"a": range(100_000)}))
    assert DeltaTable(sys.argv[1]).to_pyarrow_dataset().count_rows() == 100_000
    os._exit(0)
status = os.waitpid(task, 0)[1]
sys.exit(0 if status == 0 else f"the fork ended with {status}")
"""


def test_a_fork_finds_all_it_needs_in_memory_and_its_threads_work(tmp_path):
    program = tmp_path / "forked.py"
    program.write_text(FORKED, encoding="utf-8")
    command = [sys.executable, str(program), str(tmp_path / "table")]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr


def test_it_goes_on_as_the_scheduler_of_airflow(monkeypatch):
    called = []
    monkeypatch.setattr(airflow_scheduler, "load_what_tasks_import", lambda: called.append("load"))
    monkeypatch.setattr("airflow.__main__.main", lambda: called.append(sys.argv))
    monkeypatch.setattr(sys, "argv", ["before"])
    airflow_scheduler.main()
    assert called == ["load", ["airflow", "scheduler", "--skip-serve-logs"]]
