"""Laying out a backfill, against an API server that plays back what Airflow answers."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

import pytest

from bahe_tasks.engines import airflow_runs
from bahe_tasks.engines.airflow_api import AirflowApiError
from bahe_tasks.engines.airflow_runs import (
    RUNS,
    AirflowBackfillError,
    close_leftovers,
    lay_out_backfill,
    runs_of,
    unpaused,
)

DAG = "dags/bahe_daily_update"
DAYS = [date(2024, 1, 1), date(2024, 1, 2)]


class PlayedApi:
    """Answers like Airflow: its runs are `runs`, its unfinished backfills `open_backfills`."""

    def __init__(self, *, runs=(), open_backfills=(), refusals=(), is_paused=False):
        self.is_paused = is_paused
        self.runs = list(runs)
        self.open_backfills = list(open_backfills)
        self.refusals = list(refusals)
        self.calls = []

    def get(self, path, **query):
        if path == "backfills":
            return {"backfills": [{"id": n, "completed_at": None} for n in self.open_backfills]}
        if path == DAG:
            return {"is_paused": self.is_paused}
        asked = {key: query[key] for key in ("state", "run_type") if key in query}
        runs = [run for run in self.runs if all(run[key] == value for key, value in asked.items())]
        page = runs[query.get("offset", 0) :][: query["limit"]]
        return {"dag_runs": page, "total_entries": len(runs)}

    def call(self, method, path, body=None, *, retry=True, timeout_s=60):
        self.calls.append((method, path))
        if method == "POST" and self.refusals:
            status = self.refusals.pop(0)
            raise AirflowApiError(f"answered {status}", status=status)
        if method == "DELETE":
            self.runs = [run for run in self.runs if not path.endswith(run["dag_run_id"])]
        if (method, path) == ("PATCH", DAG):
            self.is_paused = body["is_paused"]
        if method == "PATCH" and path.startswith(RUNS):
            next(run for run in self.runs if path.endswith(run["dag_run_id"]))["state"] = body["state"]
        if method == "PUT":
            self.open_backfills.remove(int(path.split("/")[1]))
        if (method, path) == ("POST", "backfills"):
            self.runs += [a_run(day) for day in DAYS if day not in {airflow_runs.day_of(run) for run in self.runs}]


def a_run(day, *, interval_start=None, state="queued", run_type="backfill"):
    start = interval_start or day
    return {
        "dag_run_id": f"run-{day}",
        "logical_date": f"{day}T00:00:00Z",
        "data_interval_start": f"{start}T00:00:00Z",
        "state": state,
        "run_type": run_type,
    }


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(airflow_runs.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize("is_paused", [False, True])
def test_the_dag_is_unpaused_for_a_backfill_and_then_as_it_was_also_when_interrupted(is_paused):
    api = PlayedApi(is_paused=is_paused)
    with suppress(KeyboardInterrupt), unpaused(api):
        paused_meanwhile = api.is_paused
        raise KeyboardInterrupt
    assert (paused_meanwhile, api.is_paused) == (False, is_paused)


@pytest.mark.parametrize("status", [500, 503, 409])
def test_a_locked_database_is_met_by_trying_again(status):
    api = PlayedApi(refusals=[status, status])
    lay_out_backfill(api, DAYS, conf={})
    assert [airflow_runs.day_of(run) for run in api.runs] == DAYS


def test_a_half_made_backfill_is_cancelled_before_the_next_try():
    api = PlayedApi(refusals=[503], open_backfills=[7])
    lay_out_backfill(api, DAYS, conf={})
    assert api.calls.index(("PUT", "backfills/7/cancel")) < len(api.calls) - 1
    assert api.calls[-1] == ("POST", "backfills")


def test_other_refusals_are_raised():
    with pytest.raises(AirflowApiError, match="403"):
        lay_out_backfill(PlayedApi(refusals=[403]), DAYS, conf={})


def test_a_day_that_is_not_over_is_an_error_whether_airflow_refuses_or_leaves_it_out():
    with pytest.raises(AirflowBackfillError, match="only once it is over"):
        lay_out_backfill(PlayedApi(refusals=[422]), DAYS, conf={})
    with pytest.raises(AirflowBackfillError, match="2024-01-03 is not over yet"):
        lay_out_backfill(PlayedApi(), [*DAYS, date(2024, 1, 3)], conf={})


def test_a_run_of_the_same_date_but_another_day_is_removed_first():
    by_hand = a_run(DAYS[1], interval_start=DAYS[0], state="success")
    api = PlayedApi(runs=[by_hand])
    lay_out_backfill(api, DAYS, conf={})
    assert api.calls[0] == ("DELETE", f"{RUNS}/{by_hand['dag_run_id']}")
    assert all(run["logical_date"] == run["data_interval_start"] for run in api.runs)


def test_a_run_of_the_day_itself_is_kept_to_run_again():
    api = PlayedApi(runs=[a_run(DAYS[0], state="success")])
    lay_out_backfill(api, DAYS, conf={})
    assert "DELETE" not in [method for method, _ in api.calls]


def test_leftovers_of_an_ended_airflow_are_closed():
    api = PlayedApi(runs=[a_run(DAYS[0], state="running"), a_run(DAYS[1])], open_backfills=[3, 4])
    close_leftovers(api)
    assert [run["state"] for run in api.runs] == ["failed", "failed"]
    assert api.open_backfills == []


def test_a_scheduled_day_that_was_left_half_run_goes_on_where_days_are_scheduled():
    api = PlayedApi(runs=[a_run(DAYS[0], state="running"), a_run(DAYS[1], state="running", run_type="scheduled")])
    close_leftovers(api, backfills_only=True)
    assert [run["state"] for run in api.runs] == ["failed", "running"]


def test_more_runs_than_fit_a_page_are_all_found():
    runs = [a_run(date(2024, 1, 1), state="success") for _ in range(250)]
    assert len(runs_of(PlayedApi(runs=runs), DAYS)) == 250
