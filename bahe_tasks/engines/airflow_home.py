"""The embedded Airflow's own folder, HOME/airflow: settings file, secrets, environment, port, lock.

Everything Airflow needs stands in HOME/airflow/airflow.cfg, written anew at each start, so that the plain `airflow`
command works on it too: `AIRFLOW_HOME=HOME/airflow airflow dags list`.
Unusual: every server listens on the loopback interface only, and there the page opens without a password (Airflow's
own "all admins" mode). Settings of another Airflow in the environment are kept out.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import secrets
import socket
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bahe_tasks.config import AirflowConfig, Config
from bahe_tasks.stores.file_lock import took_lock

DAG_ID = "bahe_daily_update"
HOST = "127.0.0.1"
PARALLELISM = 4
POOLS = {"bahe_spark": 1, "bahe_training": 1}
"""Slots of the pools the DAG's tasks name. A task of a pool that does not exist never runs, and nothing says so."""

_ENDS_WITHIN_S = 5.0
_SECRETS = (("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret"))


class AirflowInUseError(RuntimeError):
    """Another program runs the embedded Airflow of this home folder."""


def airflow_home(config: Config) -> Path:
    """Return the folder of the embedded Airflow."""
    return config.home / "airflow"


def dags_folder() -> Path:
    """Return the folder of the installed package `dags`, or raise `ModuleNotFoundError`."""
    spec = importlib.util.find_spec("dags")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `dags` is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def free_port(wanted: int) -> int:
    """Return `wanted` if nothing listens there on the loopback interface, else a port the system chooses."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")


def write_settings(config: Config, *, port: int, schedules: bool) -> Path:
    """Write HOME/airflow/airflow.cfg, readable by its owner only, and return its path. Secrets that are there stay.

    `schedules`: whether days from `airflow.schedule_start` on, where it is set, run by themselves.
    """
    folder = airflow_home(config)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "airflow.cfg"
    before = configparser.RawConfigParser()
    before.read(path, encoding="utf-8")
    parser = configparser.RawConfigParser()
    parser.read_dict(_settings(config, port=port, schedules=schedules))
    for section, key in _SECRETS:
        length = 32 if key == "fernet_key" else 64  # bytes; what fernet needs, and what SHA-512 should have
        made = urlsafe_b64encode(secrets.token_bytes(length)).decode()
        parser.set(section, key, before.get(section, key, fallback=made))
    draft = path.with_suffix(".tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        parser.write(file)
    draft.replace(path)
    return path


def _settings(config: Config, *, port: int, schedules: bool) -> dict[str, dict[str, str]]:
    address, here = f"http://{HOST}:{port}", str(airflow_home(config)).replace("%", "%%")
    return {
        "core": {
            "dags_folder": str(dags_folder()).replace("%", "%%"),
            "plugins_folder": f"{here}/plugins",
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",
            # Else the DAG of an Airflow started within half a minute of another is that one's, which may start no days.
            "min_serialized_dag_update_interval": "0",
            "simple_auth_manager_all_admins": "True",
            "execution_api_server_url": f"{address}/execution/",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{here}/airflow.db?timeout=30"},
        "api": {"host": HOST, "port": str(port), "base_url": address, "workers": "1"},
        "api_auth": {},
        # A task's token must outlive the task, however long it trains.
        "execution_api": {"jwt_expiration_time": str(7 * 24 * 3600)},
        "scheduler": {
            "use_job_schedule": str(schedules and config.airflow.schedule_start != AirflowConfig.schedule_start),
            "scheduler_idle_sleep_time": "0.5",  # seconds lost between two tasks; less costs CPU while one runs
            "scheduler_health_check_server_host": HOST,
        },
        # The DAG file changes with an installation, not while it runs. Each reading of it sends the schedule back to the day after
        # the latest run that was not laid out by hand, from where it passes over two days a second.
        "dag_processor": {"parsing_processes": "1", "min_file_process_interval": "86400"},
        "logging": {"base_log_folder": f"{here}/logs", "colored_console_log": "False"},
    }


def airflow_environment(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the embedded Airflow's programs: `environment`, less the settings of another Airflow."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    loopback = f"{HOST},localhost"  # what talks to the API server must not ask a proxy
    no_proxy = ",".join(filter(None, (environment.get("no_proxy") or environment.get("NO_PROXY"), loopback)))
    return {
        **kept,
        "AIRFLOW_HOME": str(airflow_home(config)),
        "BAHE_HOME": str(config.home),
        "BAHE_LANDING": str(config.landing_dir),
        "PATH": os.pathsep.join(filter(None, (str(Path(sys.executable).parent), environment.get("PATH")))),
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GX_ANALYTICS_ENABLED": "False",
    }


@contextmanager
def locked(config: Config) -> Iterator[int]:
    """Hold the home folder's Airflow for this program; yield the lock's file descriptor, to be shared with a child.

    The lock lasts until every program that has the descriptor is gone: one that was killed may take a moment, so it is
    waited for. Raises `AirflowInUseError` when it stays taken.
    """
    folder = airflow_home(config)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a", encoding="utf-8") as file:
        deadline = time.monotonic() + _ENDS_WITHIN_S
        while not took_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise AirflowInUseError(
                    f"another `bahe backfill --engine airflow` or `bahe ui` runs the Airflow in {folder}: "
                    "wait until it has ended, or end it, or use another home folder"
                )
            time.sleep(0.1)
        yield file.fileno()
