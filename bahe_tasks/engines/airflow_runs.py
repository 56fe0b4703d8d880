"""The runs of the daily DAG in the embedded Airflow: laying out a backfill or missed days, and clearing up before it.

Unusual: what an ended Airflow left behind is closed first. Airflow would refuse a second backfill, would count half-run
days as still in flight, and would go on with them by itself. A note tells such runs from those that failed by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bahe_tasks.data_interval import days_between, end_of, start_of
from bahe_tasks.engines.airflow_api import ANSWER_S, AirflowApi, AirflowApiError
from bahe_tasks.engines.airflow_home import DAG_ID

RUNS = f"dags/{DAG_ID}/dagRuns"
ATTEMPTS = 5
CUT_SHORT = "left unfinished when Airflow was ended"
"""The note of a failed run that did not end by itself."""
MISSED = "missed"
"""Stands in the configuration of a run that nobody asked for, though it is none of Airflow's own schedule."""


class AirflowBackfillError(RuntimeError):
    """The backfill could not be laid out as asked."""


def day_of(run: dict[str, Any]) -> date:
    """Return the day that a run of a backfill is for."""
    return datetime.fromisoformat(run["logical_date"]).date()


def runs_of(api: AirflowApi, days: list[date]) -> list[dict[str, Any]]:
    """Return the runs for `days` (consecutive, in order), oldest first.

    A run that was triggered by hand with one of these dates is for the day before, as Airflow counts: it is none of them.
    """
    return [run for run in _runs_dated(api, days) if run["data_interval_start"] == run["logical_date"]]


def _runs_dated(api: AirflowApi, days: list[date]) -> list[dict[str, Any]]:
    """Return the runs whose date is the start of one of `days`; one that was triggered at another hour is in nobody's way."""
    found: list[dict[str, Any]] = []
    span = {"logical_date_gte": start_of(days[0]).isoformat(), "logical_date_lte": start_of(days[-1]).isoformat()}
    while True:
        page = api.get(RUNS, order_by="logical_date", limit=100, offset=len(found), **span)
        found += page["dag_runs"]
        if len(found) >= page["total_entries"] or not page["dag_runs"]:
            return [run for run in found if datetime.fromisoformat(run["logical_date"]) == start_of(day_of(run))]


def close_leftovers(api: AirflowApi, *, backfills_only: bool = False) -> None:
    """Mark unfinished runs as cut short, those of backfills alone or all, and cancel unfinished backfills.

    In this order: cancelling would mark a backfill's runs as failed, without a note. Only for an Airflow without a scheduler.
    """
    for state in ("running", "queued"):
        kinds = {"run_type": "backfill"} if backfills_only else {}
        while runs := api.get(RUNS, state=state, limit=100, **kinds)["dag_runs"]:
            for run in runs:
                api.call("PATCH", f"{RUNS}/{run['dag_run_id']}", {"state": "failed", "note": CUT_SHORT})
    for backfill in api.get("backfills", dag_id=DAG_ID, order_by="-id")["backfills"]:
        if backfill["completed_at"] is None:
            api.call("PUT", f"backfills/{backfill['id']}/cancel")


def lay_out_missed_days(api: AirflowApi, first: date) -> None:
    """Create a run for each day from `first` on that has none or was cut short, up to the latest day that has one.

    Airflow's schedule goes on after the latest run, a backfill's too, and never looks back. These runs are older than
    those it makes and share the DAG's limit of one at a time with them, so they come first. Not a backfill: that would
    run beside the schedule. A day of a backfill that was cut short runs as it was asked for. Only for an Airflow without
    a scheduler.
    """
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    _clear_the_way(api, [today])  # at the run of another day on its date the schedule would stop tomorrow
    if first > yesterday or not (runs := _runs_dated(api, [first, yesterday])):
        return
    days = list(days_between(first, day_of(runs[-1])))
    taken, asked_for = _clear_the_way(api, days)
    for day in days:
        if day not in taken:
            body = {
                "dag_run_id": f"{MISSED}__{day}",
                "logical_date": start_of(day).isoformat(),
                "data_interval_start": start_of(day).isoformat(),
                "data_interval_end": end_of(day).isoformat(),
                "run_after": end_of(day).isoformat(),  # the order in which they run
                "conf": asked_for.get(day, {MISSED: True}),
            }
            api.call("POST", RUNS, body)


def make_way_for_schedule(api: AirflowApi) -> None:
    """Remove an ended run for another day from the date that the schedule goes on with: it would find the date taken, for ever.

    Not before that day is due.
    """
    dag = api.get(f"dags/{DAG_ID}")
    goes_on_with, due = dag["next_dagrun_logical_date"], dag["next_dagrun_run_after"]
    if goes_on_with and due and datetime.fromisoformat(due) <= datetime.now(UTC):
        _clear_the_way(api, [datetime.fromisoformat(goes_on_with).date()])


@contextmanager
def unpaused(api: AirflowApi) -> Iterator[None]:
    """Un-pause the DAG: in a paused one not even a backfill runs. Pause it again afterwards if somebody had paused it.

    Else the next `bahe ui` would run every day since `airflow.schedule_start`. A program that is killed leaves it un-paused.
    """
    was_paused = api.get(f"dags/{DAG_ID}")["is_paused"]
    api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
    try:
        yield
    finally:
        if was_paused:
            with suppress(AirflowApiError):  # an Airflow that broke down is told by what it broke
                api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": True})


def lay_out_backfill(api: AirflowApi, days: list[date], *, conf: dict[str, Any]) -> None:
    """Create a backfill of `days` (consecutive, in order), one day at a time, oldest first.

    Days that have run already run again. Raises `AirflowBackfillError` when a day is not over yet.
    """
    body = {
        "dag_id": DAG_ID,
        "from_date": start_of(days[0]).isoformat(),
        "to_date": start_of(days[-1]).isoformat(),
        "max_active_runs": 1,
        "reprocess_behavior": "completed",
        "dag_run_conf": conf,
    }
    not_over = "Airflow runs a day only once it is over (UTC): end the backfill earlier, or use `--engine inline`"
    for attempt in range(1, ATTEMPTS + 1):
        _clear_the_way(api, days)
        try:
            api.call("POST", "backfills", body, retry=False, timeout_s=ANSWER_S + len(days))  # it makes all the runs
            break
        except AirflowApiError as error:
            if error.status == 422:
                raise AirflowBackfillError(not_over) from error
            if attempt == ATTEMPTS or error.status not in (0, 409, 500, 503):
                raise
            time.sleep(attempt)  # the database was locked, and a half-made backfill may stand
            close_leftovers(api)
    laid_out = {day_of(run) for run in runs_of(api, days)}
    if missing := [day for day in days if day not in laid_out]:
        close_leftovers(api)
        raise AirflowBackfillError(f"{missing[0]} is not over yet. {not_over}")


def _clear_the_way(api: AirflowApi, days: list[date]) -> tuple[set[date], dict[date, dict[str, Any]]]:
    """Remove runs that stand in the way of a new one of these days.

    Return the days on whose date a run remains, and how the removed days of backfills were asked for.

    Those are runs that were cut short, and those triggered by hand with one of these dates, which are for the day before:
    Airflow's backfill of the date would run such a run again, and so the wrong day. What it did stays in the tables.
    """
    remain, asked_for = set(), {}
    for run in _runs_dated(api, days):
        other_day = run["data_interval_start"] != run["logical_date"]
        ended = run["state"] in ("success", "failed")  # Airflow removes no other
        cut_short = (run["state"], run["note"]) == ("failed", CUT_SHORT)
        if ended and (other_day or cut_short):
            api.call("DELETE", f"{RUNS}/{run['dag_run_id']}")
        else:
            remain.add(day_of(run))
        if cut_short and run["run_type"] != "scheduled" and not other_day:
            asked_for[day_of(run)] = run["conf"]
    return remain, asked_for
