"""The scheduler of the embedded Airflow, which has loaded beforehand what its tasks import.

Run as `python -m bahe_tasks.engines.airflow_scheduler`. Airflow's LocalExecutor forks its workers from the scheduler and each
task from a worker, so that a task finds torch, transformers, MLflow and Great Expectations in memory. Each task importing
them anew was most of what a day in Airflow took (`benchmarks.airflow_cost`).

Unusual: nothing but imports may happen here, since a fork takes over no threads and no GPU that is in use. Code that is
installed anew is run once this program is started again.
"""

from __future__ import annotations

import sys
from importlib import import_module

from bahe_tasks.engines.day_outcome import TASK_ORDER
from bahe_tasks.processor_sharing import sleep_while_waiting

_IMPORTED_LATE = ("great_expectations.expectations", "mlflow.pyfunc", "mlflow.tracking")
"""What stages import within functions."""


def load_what_tasks_import() -> None:
    """Import every stage, and what they import late."""
    sleep_while_waiting()
    for module in (*(f"bahe_tasks.stages.{task}" for task in TASK_ORDER), *_IMPORTED_LATE):
        import_module(module)


def main() -> None:
    """Load, and be Airflow's scheduler."""
    load_what_tasks_import()
    sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
    import_module("airflow.__main__").main()


if __name__ == "__main__":
    main()
