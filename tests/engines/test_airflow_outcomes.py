"""What a backfill takes for the outcome of a day, told by an Airflow that answers from a dictionary."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

from bahe_tasks.engines import airflow_backfill
from bahe_tasks.engines.airflow_api import AirflowApiError
from bahe_tasks.engines.airflow_backfill import _outcome
from bahe_tasks.engines.airflow_runs import RUNS, runs_of
from bahe_tasks.engines.day_outcome import DayOutcome

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


def test_a_run_that_was_marked_as_done_by_hand_is_not():
    states = {"dedup_behaviors": "success", "fine_tune": "success", "publish_embeddings": "skipped"}
    tasks = [{"task_id": name, "state": state, "duration": 1.0} for name, state in states.items()]
    values = f"{RUNS}/r/taskInstances/fine_tune/xcomEntries/return_value"
    server = airflow({values: {"value": {"state": "trained"}}})
    outcome = _outcome(server, run("r", DAY, DAY), tasks)
    assert (outcome.state, outcome.message) == ("failed", "it was marked as done before it was: run the day again")


def failed(told: dict, **times) -> DayOutcome:
    """The outcome of a run whose first task failed, `told` being its XCom `problem`."""
    task = {
        "task_id": "dedup_behaviors",
        "state": "failed",
        "duration": None,
        "start_date": times.pop("task_began", DAY),
    }
    server = airflow({f"{RUNS}/r/taskInstances/dedup_behaviors/xcomEntries/problem": {"value": told}})
    return _outcome(server, run("r", DAY, DAY) | {"state": "failed"} | times, [task])


def test_a_task_that_failed_tells_why():
    assert failed({"state": "refused", "message": "too few rows"}).state == "refused"


def test_a_task_that_failed_before_it_began_does_not_tell_why_it_failed_in_an_earlier_run():
    outcome = failed({"state": "refused", "message": "too few rows"}, task_began="2024-01-01T00:00:00Z")
    assert outcome.state == "failed"
    assert outcome.message.startswith("dedup_behaviors ended without a word")


def test_a_run_that_was_ended_before_it_began_took_no_time():
    assert failed({}, start_date=None).seconds == 0


def test_a_day_whose_run_was_deleted_has_failed(monkeypatch):
    monkeypatch.setattr(airflow_backfill, "POLL_S", 0)
    said = []
    server = airflow({RUNS: {"dag_runs": [], "total_entries": 0}})
    server.check = lambda: None
    outcomes = airflow_backfill._watch(server, [date(2024, 1, 2)], SimpleNamespace(day=said.append))
    assert [(outcome.state, outcome.message) for outcome in outcomes] == [("failed", "its run was deleted in Airflow")]
    assert said == outcomes


def test_a_run_that_is_deleted_between_two_questions_is_told_by_the_next_look(monkeypatch):
    monkeypatch.setattr(airflow_backfill, "POLL_S", 0)
    looks = [[run("r", DAY, DAY) | {"state": "running"}], []]

    def get(path, **_asked):
        if path != RUNS:
            raise AirflowApiError("not found", status=404)
        runs = looks.pop(0)
        return {"dag_runs": runs, "total_entries": len(runs)}

    server = SimpleNamespace(api=SimpleNamespace(get=get), check=lambda: None)
    outcomes = airflow_backfill._watch(server, [date(2024, 1, 2)], SimpleNamespace(day=lambda outcome: None))
    assert [outcome.message for outcome in outcomes] == ["its run was deleted in Airflow"]
