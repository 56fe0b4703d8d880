"""What a backfill takes for the outcome of a day, told by an Airflow that answers from a dictionary."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

from bahe_tasks.engines.airflow_backfill import _outcome
from bahe_tasks.engines.airflow_runs import RUNS, runs_of

DAY, NOON = "2024-01-02T00:00:00Z", "2024-01-02T12:00:00Z"


def run(name: str, logical_date: str, interval_start: str) -> dict:
    times = {"start_date": DAY, "end_date": NOON, "state": "success"}
    return {"dag_run_id": name, "logical_date": logical_date, "data_interval_start": interval_start, **times}


def airflow(answers: dict) -> SimpleNamespace:
    return SimpleNamespace(api=SimpleNamespace(get=lambda path, **_asked: answers.get(path)), folder=Path("airflow"))


def test_a_run_triggered_by_hand_with_a_date_is_not_the_day_s():
    runs = [run("backfill", DAY, DAY), run("by hand", NOON, "2024-01-01T00:00:00Z")]
    server = airflow({RUNS: {"dag_runs": runs, "total_entries": 2}})
    assert [found["dag_run_id"] for found in runs_of(server.api, [date(2024, 1, 2)])] == ["backfill"]


def test_what_skipped_tasks_said_in_an_earlier_run_of_the_day_is_not_told_again():
    states = {"dedup_behaviors": "success", "fine_tune": "skipped", "register_challenger": "skipped"}
    tasks = [{"task_id": name, "state": state, "duration": 1.0} for name, state in states.items()]
    told = {"fine_tune": {"state": "no_impressions"}, "register_challenger": {"version": 3}}
    values = "taskInstances/{}/xcomEntries/return_value"
    server = airflow(
        {f"{RUNS}/r/{values.format(name)}": {"value": value} for name, value in told.items()}
        | {f"{RUNS}/r/{values.format('dedup_behaviors')}": {"value": {"rows": 1}}}
    )
    outcome = _outcome(server, run("r", DAY, DAY), tasks)
    assert outcome.state == "no_impressions"
    assert outcome.results == {"dedup_behaviors": {"rows": 1}, "fine_tune": {"state": "no_impressions"}}
