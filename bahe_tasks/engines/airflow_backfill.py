"""A backfill through the real Airflow scheduler: oldest day first, one at a time, on past a refused day.

Airflow's own backfill does the work; this file starts it, watches it and reads what its tasks returned.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Literal

from bahe_tasks.config import Config
from bahe_tasks.data_interval import days_between
from bahe_tasks.engines.airflow_api import AirflowApi, AirflowApiError
from bahe_tasks.engines.airflow_progress import BackfillProgress
from bahe_tasks.engines.airflow_runs import RUNS, day_of, lay_out_backfill, runs_of, unpaused
from bahe_tasks.engines.airflow_server import AirflowServer, running_airflow
from bahe_tasks.engines.day_outcome import TASK_ORDER, DayOutcome, why_no_impressions, why_without_model

POLL_S = 1.0
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


def run_backfill_in_airflow(
    config: Config, first: date, last: date, *, force: bool = False, accept_inputs: str | None = None
) -> list[DayOutcome]:
    """Run every day from `first` to `last`, both included, in the embedded Airflow; return their outcomes in order.

    Shows progress on standard error, and ends what it started, also when interrupted. A day that fails or is refused
    is an outcome. Raises `AirflowInUseError`, `AirflowStartError`, `AirflowBackfillError` or `AirflowApiError`.
    """
    days = list(days_between(first, last))
    with BackfillProgress(len(days)) as progress:
        progress.phase("starting Airflow")
        with running_airflow(config, schedules=False) as server, unpaused(server.api):
            lay_out_backfill(server.api, days, conf={"day": None, "force": force, "accept_inputs": accept_inputs})
            server.start_scheduler()
            progress.phase(f"running {len(days)} days; page at {server.address}")
            outcomes = _watch(server, days, progress)
            progress.phase("ending Airflow")
        progress.phase("")
    return [_with_landing(outcome, config) for outcome in outcomes]


def _with_landing(outcome: DayOutcome, config: Config) -> DayOutcome:
    """Return the outcome; that of a day without impressions says what lies where they should."""
    if outcome.state != "no_impressions":
        return outcome
    return replace(outcome, message=why_no_impressions(outcome.day, outcome.results, config.landing_dir))


def _watch(server: AirflowServer, days: list[date], progress: BackfillProgress) -> list[DayOutcome]:
    outcomes: dict[date, DayOutcome] = {}
    shown: dict[tuple[date, str], str] = {}
    while len(outcomes) < len(days):
        server.check()
        runs = {day_of(run): run for run in runs_of(server.api, days)}
        for day in days:
            if day not in runs and day not in outcomes:
                outcomes[day] = DayOutcome(day, "failed", seconds=0.0, message="its run was deleted in Airflow")
                progress.day(outcomes[day])
        for day, run in runs.items():
            if day in outcomes or run["state"] == "queued":
                continue
            found = _found(server.api, f"{RUNS}/{run['dag_run_id']}/taskInstances", limit=100)
            if found is None:
                continue  # deleted just now, which the next look at the runs tells
            tasks = sorted(  # a backfill does not wait for the landing
                (task for task in found["task_instances"] if task["task_id"] in TASK_ORDER),
                key=lambda task: TASK_ORDER.index(task["task_id"]),
            )
            finished = sum(task["state"] in ENDED for task in tasks)
            for task in tasks:
                key, state = (day, task["task_id"]), task["state"] or "waiting"
                if shown.get(key, "waiting") != state:
                    shown[key] = state
                    seconds = (task["duration"] or 0.0) if state in ENDED else None
                    progress.task(day, task["task_id"], state, seconds, finished=finished)
            if run["state"] in ("success", "failed"):
                outcomes[day] = _outcome(server, run, tasks)
                progress.day(outcomes[day])
        time.sleep(POLL_S)
    return [outcomes[day] for day in days]


def _outcome(server: AirflowServer, run: dict[str, Any], tasks: list[dict[str, Any]]) -> DayOutcome:
    results, problem = {}, None
    for task in tasks:
        values = f"{RUNS}/{run['dag_run_id']}/taskInstances/{task['task_id']}/xcomEntries"
        # Of the skipped tasks fine_tune alone ran and said why; Airflow keeps what the others said in an earlier run of the day.
        has_told = task["state"] == "success" or (task["state"] == "skipped" and task["task_id"] == "fine_tune")
        if has_told and (value := _xcom(server.api, f"{values}/return_value")):
            results[task["task_id"]] = value
        if task["state"] == "failed" and problem is None:
            problem = (_xcom(server.api, f"{values}/problem") if _began(task, run) else None) or {
                "state": "failed",
                "message": f"{task['task_id']} ended without a word; see the logs in {server.folder / 'logs'}",
            }
    state: Literal["done", "no_impressions", "no_training_rows", "refused", "failed"] = "done"
    if problem is not None:
        state = "refused" if problem["state"] == "refused" else "failed"
    elif run["state"] == "failed" or not tasks:
        state, problem = "failed", {"message": f"the run ran no task; see {server.folder / 'logs' / 'scheduler.log'}"}
    elif (trained := results.get("fine_tune", {}).get("state")) in ("no_impressions", "no_training_rows"):
        state = trained
    elif TASK_ORDER[-1] not in results:
        state, problem = "failed", {"message": "it was marked as done before it was: run the day again"}
    return DayOutcome(
        day=day_of(run),
        state=state,
        seconds=_seconds(run),
        task_states={task["task_id"]: task["state"] for task in tasks},
        task_seconds={task["task_id"]: round(task["duration"], 3) for task in tasks if task["duration"]},
        results=results,
        message=problem["message"] if problem else why_without_model(results),
    )


def _xcom(api: AirflowApi, path: str) -> Any:
    return (_found(api, path) or {}).get("value")


def _found(api: AirflowApi, path: str, **query: str | int) -> Any:
    """Return the document at `path`, None where there is none."""
    try:
        return api.get(path, **query)
    except AirflowApiError as error:
        if error.status == 404:
            return None
        raise


def _began(task: dict[str, Any], run: dict[str, Any]) -> bool:
    """Tell whether a task was started in this run: of one that was not, Airflow keeps times and XComs of an earlier run."""
    times = [told["start_date"] and datetime.fromisoformat(told["start_date"]) for told in (run, task)]
    return all(times) and times[0] <= times[1]


def _seconds(run: dict[str, Any]) -> float:
    """Return how long a run took, 0 for one that was ended before it began."""
    if run["start_date"] is None:
        return 0.0
    return (datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])).total_seconds()
