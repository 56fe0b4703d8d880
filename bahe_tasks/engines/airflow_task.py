"""How a stage runs as an Airflow task: which day, which settings, and how its outcome is told.

Loads nothing heavy, since the DAG file imports it whenever it is parsed. The environment is read here, at the edge:
BAHE_HOME (else ./bahe_home) and BAHE_LANDING.
Unusual: a task that fails leaves an XCom `problem`, from which a backfill learns without reading logs whether a gate
refused the day or something broke.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseSensorOperator, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from bahe_tasks.config import AirflowConfig, Config, load_config
from bahe_tasks.data_interval import day_of_run, end_of, parse_day, start_of
from bahe_tasks.engines.airflow_runs import MISSED
from bahe_tasks.processor_sharing import sleep_while_waiting

MAX_MESSAGE = 2000
LANDS_WITHIN = timedelta(hours=24)
"""How long after its end a day that runs by itself may land. It holds up all later days meanwhile."""


def airflow_settings() -> AirflowConfig:
    """Return the section `airflow` of the home folder's settings, the defaults where there is no home folder yet."""
    home = _home()
    return load_config(home).airflow if (home / "bahe.yaml").is_file() else AirflowConfig()


def starts(settings: AirflowConfig) -> dict[str, Any]:
    """Return the DAG's `start_date` and `catchup`: every day from airflow.schedule_start on runs by itself, oldest first.

    A day that was missed would be a hole in histories and in what the model has seen. In an Airflow that starts no run by
    itself (the embedded one in a backfill, or until schedule_start is set) the start is long past: a run that is
    triggered by hand for a date before it would succeed without running any task.
    """
    by_itself = conf.getboolean("scheduler", "use_job_schedule")
    return {
        "start_date": start_of(parse_day(settings.schedule_start if by_itself else "2000-01-01")),
        "catchup": by_itself,
    }


class LandingSensor(BaseSensorOperator):
    """Waits for the files that airflow.wait_for names, until 24 h after the day's end. A run that somebody asked for does not wait."""

    def __init__(self, *, settings: AirflowConfig, **of_task: Any) -> None:
        super().__init__(mode="reschedule", poke_interval=60, doc_md=self.__doc__, **of_task)
        self.settings = settings

    def poke(self, context: Any) -> bool:
        """Tell whether this run's day has landed; say what is missing. Fails when it is too late to wait."""
        if not _runs_by_itself(context["dag_run"]):
            return True
        day = day_of_run(context.get("data_interval_start"), context["params"]["day"])
        landing = load_config(_home(), landing_dir=os.environ.get("BAHE_LANDING")).landing_dir
        missing = [path for path in self.settings.paths_of(day) if not (landing / path).exists()]
        if not missing:
            return True
        told = f"{', '.join(missing)} in {landing}"
        if datetime.now(UTC) > end_of(day) + LANDS_WITHIN:
            hours = LANDS_WITHIN // timedelta(hours=1)
            raise AirflowFailException(
                f"{hours} h after its end {day} has not landed: no {told}. Once it has: `bahe run-day {day}`"
            )
        self.log.info("waiting for %s", told)
        return False


def _runs_by_itself(run: Any) -> bool:
    """Tell whether nobody asked for this run. A backfill makes a run its own that stands on its date."""
    return run.run_type == "scheduled" or (run.run_type == "manual" and MISSED in (run.conf or {}))


def run_stage(stage: Callable[[date, Config, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Call `stage` with the day, the settings and the parameters of this run; return its small JSON document.

    A refused gate, an input that is not there and a wrong setting would be the same on a retry: such a task fails at
    once (`AirflowFailException`). Every other error is raised as it is, and retried. The pages of a gate that refuses are written.
    """
    from bahe_tasks.stages.errors import GateRefused, NothingLandedError

    sleep_while_waiting()
    context = get_current_context()
    try:
        params = dict(context["params"])
        day = day_of_run(context.get("data_interval_start"), params["day"])
        result = stage(day, load_config(_home(), landing_dir=os.environ.get("BAHE_LANDING")), params)
    except Exception as error:
        refused = isinstance(error, GateRefused)
        message = str(error) if refused else f"{type(error).__name__}: {error}"
        problem = {"state": "refused" if refused else "failed", "message": message[:MAX_MESSAGE]}
        context["ti"].xcom_push("problem", problem)
        if refused:
            write_pages()
        if isinstance(error, GateRefused | NothingLandedError | FileNotFoundError | ValueError):
            raise AirflowFailException(message) from error
        raise
    logging.getLogger(__name__).info("%s: %s", day, " · ".join(f"{key} {value}" for key, value in result.items()))
    return result


def write_pages() -> None:
    """Write the pages of Great Expectations' results that have none."""
    from bahe_tasks.stores.expectations import write_data_docs

    write_data_docs(_home() / "gx")


def skip_with(result: dict[str, Any]) -> None:
    """End this task, and all that follow it, as skipped; `result` is kept as what it returned."""
    get_current_context()["ti"].xcom_push("return_value", result)
    raise AirflowSkipException(f"nothing to do: {result['state']}")


def _home() -> Path:
    return Path(os.environ.get("BAHE_HOME", "bahe_home"))
