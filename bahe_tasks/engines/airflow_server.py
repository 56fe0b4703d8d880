"""Starts and stops the embedded Airflow of a home folder: API server, DAG processor, scheduler.

Unusual: `airflow standalone` is not used. It starts a triggerer nobody needs and a log server on every address, and
some of its children survive it. The scheduler is started apart from the rest, so that runs can be laid out first
without two programs writing to the sqlite database.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bahe_tasks.config import Config
from bahe_tasks.data_interval import parse_day
from bahe_tasks.engines.airflow_api import AirflowApi, AirflowApiError
from bahe_tasks.engines.airflow_home import (
    DAG_ID,
    HOST,
    POOLS,
    airflow_environment,
    airflow_home,
    free_port,
    locked,
    write_settings,
)
from bahe_tasks.engines.airflow_keeper import GRACE_S, end_session
from bahe_tasks.engines.airflow_runs import close_leftovers, lay_out_missed_days

START_TIMEOUT_S = 180.0
KEEPER_ENDS_S = 3 * GRACE_S
"""How long a keeper may take to end its programs, by request and then by force, and itself."""


class AirflowStartError(RuntimeError):
    """A program of the embedded Airflow did not start, or ended."""


@dataclass(frozen=True)
class AirflowServer:
    """A running embedded Airflow: its page's address, its API, its folder, its keeper."""

    address: str
    api: AirflowApi
    folder: Path
    keeper: subprocess.Popen[str]

    def start(self, name: str, command: list[str]) -> None:
        """Start a program beside the others; its output goes to HOME/airflow/logs/NAME.log."""
        order = {"name": name, "command": command, "log": str(self.folder / "logs" / f"{name}.log")}
        assert self.keeper.stdin is not None
        print(json.dumps(order), file=self.keeper.stdin, flush=True)

    def start_scheduler(self) -> None:
        """Start the scheduler (`airflow_scheduler`), without its log server: the API server reads the logs from the folder.

        Meanwhile the part of the API that tasks talk to is woken: its first answer takes longer than a task waits.
        """
        self.start("scheduler", [sys.executable, "-m", "bahe_tasks.engines.airflow_scheduler"])
        self.api.wake()

    def check(self, *, within_s: float = 0.0) -> None:
        """Raise `AirflowStartError` when one of the programs has ended, or will be known to have in so many seconds.

        The keeper first ends the others, and then itself.
        """
        if within_s:
            with suppress(subprocess.TimeoutExpired):
                self.keeper.wait(within_s)
        if self.keeper.poll() is not None:
            assert self.keeper.stdout is not None
            name = self.keeper.stdout.readline().strip() or "keeper"
            raise AirflowStartError(f"Airflow's {name} ended by itself; see {self.folder / 'logs' / f'{name}.log'}")


@contextmanager
def running_airflow(config: Config, *, schedules: bool) -> Iterator[AirflowServer]:
    """Start the API server and the DAG processor; yield when the DAG is known; end everything on the way out.

    `schedules`: whether days start by themselves, from `airflow.schedule_start` on, and go on that an ended Airflow left
    half-run or that were gone past. Otherwise nothing runs but what is asked for: it would be cut short when this Airflow ends.

    Raises `AirflowInUseError`, `AirflowStartError`.
    """
    with locked(config) as lock:
        port = free_port(config.airflow.port)
        write_settings(config, port=port, schedules=schedules)
        environment = airflow_environment(config, os.environ)
        folder, address = airflow_home(config), f"http://{HOST}:{port}"
        (folder / "logs").mkdir(exist_ok=True)
        _migrate(folder, environment)
        keeper = _start_keeper(folder, environment, lock=lock)
        try:
            server = AirflowServer(address, AirflowApi(address), folder, keeper)
            server.start("api-server", [sys.executable, "-m", "airflow", "api-server"])
            server.start("dag-processor", [sys.executable, "-m", "airflow", "dag-processor"])
            _wait_until_ready(server)
            _make_pools(server.api)
            close_leftovers(server.api, backfills_only=schedules)
            _let_ended_backfills_run(folder)
            if schedules:
                lay_out_missed_days(server.api, parse_day(config.airflow.schedule_start))
            yield server
        except AirflowApiError as error:
            # With the API server it is mostly another program that ended, which the keeper tells once all have ended.
            server.check(within_s=0.0 if 0 < error.status < 500 else KEEPER_ENDS_S)
            raise
        finally:
            _end(keeper)


def _start_keeper(folder: Path, environment: dict[str, str], *, lock: int) -> subprocess.Popen[str]:
    with (folder / "logs" / "keeper.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bahe_tasks.engines.airflow_keeper", str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
            pass_fds=(lock,),
        )


def _migrate(folder: Path, environment: dict[str, str]) -> None:
    release, mark = version("apache-airflow"), folder / "migrated_to"
    if (folder / "airflow.db").is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == release:
        return
    log = folder / "logs" / "migrate.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        done = subprocess.run(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if done.returncode:
        raise AirflowStartError(f"the metadata database of {folder} could not be made or migrated; see {log}")
    with sqlite3.connect(folder / "airflow.db") as database:
        database.execute("PRAGMA journal_mode=WAL")  # readers and the one writer no longer wait for each other
    mark.write_text(release, encoding="utf-8")


def _wait_until_ready(server: AirflowServer) -> None:
    """Wait until the DAG file has been read since this start: what the database still knows of it may be outdated."""
    started, deadline = datetime.now(UTC), time.monotonic() + START_TIMEOUT_S
    while True:
        server.check()
        try:
            known = server.api.call("GET", f"dags/{DAG_ID}", retry=False)
            if datetime.fromisoformat(known["last_parsed_time"]) > started and not known["is_stale"]:
                return
        except AirflowApiError as error:
            if error.status not in (0, 404):
                raise
        if broken := _import_error(server.api, since=started):
            raise AirflowStartError(f"the DAG file does not load: {broken}")
        if time.monotonic() > deadline:
            raise AirflowStartError(
                f"Airflow was not ready after {START_TIMEOUT_S:.0f} s; see {server.folder / 'logs'}"
            )
        time.sleep(0.25)


def _import_error(api: AirflowApi, *, since: datetime) -> str:
    with suppress(AirflowApiError):
        for error in api.call("GET", "importErrors", retry=False)["import_errors"]:
            if datetime.fromisoformat(error["timestamp"]) > since:
                return str(error["stack_trace"]).strip().splitlines()[-1]
    return ""


def _make_pools(api: AirflowApi) -> None:
    known = {pool["name"] for pool in api.get("pools", limit=100)["pools"]}
    for name in POOLS.keys() - known:
        api.call("POST", "pools", {"name": name, "slots": POOLS[name], "description": "made by bahe"})


def _let_ended_backfills_run(folder: Path) -> None:
    """Let runs of ended backfills run when somebody clears them: Airflow pauses a backfill that is cancelled, and answers no wish
    to go on with it. One that is ended by `bahe backfill` counts as under way until it is cancelled here."""
    with closing(sqlite3.connect(folder / "airflow.db", timeout=30)) as database, database:
        database.execute("UPDATE backfill SET is_paused = 0 WHERE completed_at IS NOT NULL AND is_paused")


def _end(keeper: subprocess.Popen[str]) -> None:
    """Close the keeper's input and wait until everything it keeps has ended. Interrupted here, it still ends them.

    What a keeper that was killed has left alive is ended too.
    """
    assert keeper.stdin is not None
    with suppress(OSError):
        keeper.stdin.close()
    keeper.wait(timeout=60)
    end_session(keeper.pid, grace_s=GRACE_S)
