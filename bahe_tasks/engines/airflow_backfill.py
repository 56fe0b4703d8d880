"""A backfill through the real Airflow scheduler: oldest day first, one at a time, on past a refused day.

Airflow's own backfill does the work; this file lays it out, watches it and reads what its tasks returned.
Unusual: what an earlier, killed backfill left behind is closed first, else Airflow would refuse a new one, or count its
half-run days as still in flight.
"""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import Any, Literal

from bahe_tasks.config import Config
from bahe_tasks.data_interval import days_between, start_of
from bahe_tasks.engines.airflow_api import AirflowApi, AirflowApiError
from bahe_tasks.engines.airflow_home import DAG_ID
from bahe_tasks.engines.airflow_progress import BackfillProgress
from bahe_tasks.engines.airflow_server import AirflowServer, running_airflow
from bahe_tasks.engines.day_outcome import TASK_ORDER, DayOutcome

POLL_S = 0.5
ATTEMPTS = 5
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
RUNS = f"dags/{DAG_ID}/dagRuns"


class AirflowBackfillError(RuntimeError):
    """The backfill could not be laid out as asked."""


def run_backfill_in_airflow(
    config: Config, first: date, last: date, *, force: bool = False, accept_inputs: str | None = None
) -> list[DayOutcome]:
    """Run every day from `first` to `last`, both included, in the embedded Airflow; return their outcomes in order.

    Shows progress on standard error, and ends what it started, also when interrupted. Raises `AirflowInUseError`,
    `AirflowStartError`, `AirflowBackfillError` or `AirflowApiError`; a day that fails or is refused is an outcome.
    """
    days = list(days_between(first, last))
    with running_airflow(config) as server:
        _close_leftovers(server.api)
        server.api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
        _create(server.api, days, conf={"day": None, "force": force, "accept_inputs": accept_inputs})
        server.start_scheduler()
        with BackfillProgress(len(days)) as progress:
            return _watch(server, days, progress)


def _close_leftovers(api: AirflowApi) -> None:
    for backfill in api.get("backfills", dag_id=DAG_ID, order_by="-id")["backfills"]:
        if backfill["completed_at"] is None:
            api.call("PUT", f"backfills/{backfill['id']}/cancel")
    for state in ("running", "queued"):
        for run in api.get(RUNS, state=state, limit=100)["dag_runs"]:
            api.call("PATCH", f"{RUNS}/{run['dag_run_id']}", {"state": "failed", "note": "left behind by an ended Airflow"})


def _create(api: AirflowApi, days: list[date], *, conf: dict[str, Any]) -> None:
    body = {
        "dag_id": DAG_ID,
        "from_date": start_of(days[0]).isoformat(),
        "to_date": start_of(days[-1]).isoformat(),
        "max_active_runs": 1,
        "reprocess_behavior": "completed",
        "dag_run_conf": conf,
    }
    for attempt in range(1, ATTEMPTS + 1):
        try:
            api.call("POST", "backfills", body, retry=False)
            break
        except AirflowApiError as error:
            if attempt == ATTEMPTS or error.status not in (0, 409, 500, 503):
                raise
            time.sleep(attempt)  # sqlite was locked; a half-made backfill may stand
            _close_leftovers(api)
    laid_out = {_day(run) for run in _runs(api, days)}
    if missing := [day for day in days if day not in laid_out]:
        _close_leftovers(api)
        raise AirflowBackfillError(
            f"Airflow runs a day only once it is over (UTC); {missing[0]} to {missing[-1]} is not: "
            "end the backfill before it, or use `--engine inline`"
        )


def _watch(server: AirflowServer, days: list[date], progress: BackfillProgress) -> list[DayOutcome]:
    outcomes: dict[date, DayOutcome] = {}
    shown: dict[tuple[date, str], str] = {}
    while len(outcomes) < len(days):
        server.check()
        for run in _runs(server.api, days):
            day = _day(run)
            if day in outcomes or run["state"] == "queued":
                continue
            tasks = server.api.get(f"{RUNS}/{run['dag_run_id']}/taskInstances", limit=100)["task_instances"]
            tasks.sort(key=lambda task: TASK_ORDER.index(task["task_id"]))
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
        if task["state"] in ("success", "skipped") and (value := _xcom(server.api, f"{values}/return_value")):
            results[task["task_id"]] = value
        if task["state"] == "failed" and problem is None:
            problem = _xcom(server.api, f"{values}/problem") or {
                "state": "failed",
                "message": f"{task['task_id']} ended without a word; see the logs in {server.folder / 'logs'}",
            }
    state: Literal["done", "no_impressions", "no_training_rows", "refused", "failed"] = "done"
    if problem is not None:
        state = "refused" if problem["state"] == "refused" else "failed"
    elif run["state"] == "failed":
        state, problem = "failed", {"message": f"the run failed; see {server.folder / 'logs' / 'scheduler.log'}"}
    elif (trained := results.get("fine_tune", {}).get("state")) in ("no_impressions", "no_training_rows"):
        state = trained
    return DayOutcome(
        day=_day(run),
        state=state,
        seconds=_seconds(run),
        task_states={task["task_id"]: task["state"] for task in tasks},
        task_seconds={task["task_id"]: round(task["duration"], 3) for task in tasks if task["duration"]},
        results=results,
        message=problem["message"] if problem else "",
    )


def _runs(api: AirflowApi, days: list[date]) -> list[dict[str, Any]]:
    """Return the runs of the days, oldest first."""
    found: list[dict[str, Any]] = []
    span = {"logical_date_gte": start_of(days[0]).isoformat(), "logical_date_lte": start_of(days[-1]).isoformat()}
    while True:
        page = api.get(RUNS, order_by="logical_date", limit=100, offset=len(found), **span)
        found += page["dag_runs"]
        if len(found) >= page["total_entries"] or not page["dag_runs"]:
            return found


def _xcom(api: AirflowApi, path: str) -> Any:
    try:
        return api.get(path)["value"]
    except AirflowApiError as error:
        if error.status == 404:
            return None
        raise


def _day(run: dict[str, Any]) -> date:
    return datetime.fromisoformat(run["logical_date"]).date()


def _seconds(run: dict[str, Any]) -> float:
    return (datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])).total_seconds()
