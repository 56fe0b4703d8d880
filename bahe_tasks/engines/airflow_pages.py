"""The Airflow and the MLflow page of a home folder, served on the loopback interface until Ctrl-C."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from itertools import count

from rich.console import Console

from bahe_tasks.config import Config
from bahe_tasks.engines.airflow_api import AirflowApiError
from bahe_tasks.engines.airflow_home import HOST, free_port
from bahe_tasks.engines.airflow_runs import make_way_for_schedule
from bahe_tasks.engines.airflow_server import running_airflow
from bahe_tasks.stores.model_registry import connect

MLFLOW_PORT = 5000
CHECK_S = 1.0
WAY_S = 60
"""Checks between two looks for a run that stands in the schedule's way."""


def serve_pages(config: Config) -> None:
    """Serve both pages, print their addresses on standard error, and end them on Ctrl-C.

    The scheduler runs too, so a run that is triggered on the page runs, and from `airflow.schedule_start` on each day runs
    by itself once it is over. Raises what `running_airflow` raises.
    """
    console = Console(stderr=True, highlight=False)
    console.print("starting Airflow and MLflow …")
    with suppress(KeyboardInterrupt), running_airflow(config, schedules=True) as server:
        server.start_scheduler()
        console.print(f"Airflow  {server.address}", soft_wrap=True)
        if config.tracking_uri.startswith(("http://", "https://")):
            console.print(f"MLflow   {config.tracking_uri}", soft_wrap=True)
        else:
            connect(config).follow_home()  # MLflow reads models where its database says
            port = free_port(MLFLOW_PORT)
            server.start("mlflow", _mlflow_command(config, port=port))
            console.print(
                f"MLflow   http://{HOST}:{port}  (its log: {server.folder / 'logs' / 'mlflow.log'})", soft_wrap=True
            )
        console.print("Ctrl-C ends both.")
        for second in count():
            server.check()
            if second % WAY_S == 0:
                with suppress(AirflowApiError):  # the next look may meet an answer
                    make_way_for_schedule(server.api)
            time.sleep(CHECK_S)


def _mlflow_command(config: Config, *, port: int) -> list[str]:
    """Return the command of MLflow's server over the home folder's store; artifacts are read where the runs put them."""
    options = ["--host", HOST, "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    stores = ["--backend-store-uri", config.tracking_uri, "--registry-store-uri", config.tracking_uri]
    artifacts = ["--default-artifact-root", str(config.home / "mlflow" / "artifacts")]
    return [sys.executable, "-m", "mlflow", "server", *options, *stores, *artifacts]
