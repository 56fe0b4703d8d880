"""Laying out a backfill, against an API server that plays back what Airflow answers."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import pytest

from bahe_tasks.engines import airflow_runs
from bahe_tasks.engines.airflow_api import AirflowApiError
from bahe_tasks.engines.airflow_runs import (
    CUT_SHORT,
    MISSED,
    RUNS,
    AirflowBackfillError,
    close_leftovers,
    lay_out_backfill,
    lay_out_missed_days,
    make_way_for_schedule,
    runs_of,
    unpaused,
)

DAG = "dags/bahe_daily_update"
DAYS = [date(2024, 1, 1), date(2024, 1, 2)]


class PlayedApi:
    """Answers like Airflow: its runs are `runs`, its unfinished backfills `open_backfills`."""

    def __init__(self, *, runs=(), open_backfills=(), refusals=(), is_paused=False, next_date=None):
        self.next_date = next_date
        self.is_paused = is_paused
        self.runs = list(runs)
        self.open_backfills = list(open_backfills)
        self.refusals = list(refusals)
        self.calls = []

    def get(self, path, **query):
        if path == "backfills":
            return {"backfills": [{"id": n, "completed_at": None} for n in self.open_backfills]}
        if path == DAG:
            return {
                "is_paused": self.is_paused,
                "next_dagrun_logical_date": self.next_date,
                "next_dagrun_run_after": self.next_date,
            }
        asked = {key: query[key] for key in ("state", "run_type") if key in query}
        runs = [run for run in self.runs if all(run[key] == value for key, value in asked.items())]
        if "logical_date_gte" in query:
            span = [query[f"logical_date_{end}"][:10] for end in ("gte", "lte")]
            runs = sorted(
                (run for run in runs if span[0] <= run["logical_date"][:10] <= span[1]),
                key=lambda run: run["logical_date"],
            )
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
            next(run for run in self.runs if path.endswith(run["dag_run_id"])).update(body)
        if method == "PUT":
            self.open_backfills.remove(int(path.split("/")[1]))
            for run in self.runs:
                run["state"] = "failed" if run["state"] == "queued" else run["state"]
        if (method, path) == ("POST", RUNS):
            self.runs.append(body | {"state": "queued", "run_type": "manual", "note": None})
        if (method, path) == ("POST", "backfills"):
            self.runs += [a_run(day) for day in DAYS if day not in {airflow_runs.day_of(run) for run in self.runs}]


def a_run(day, *, interval_start=None, state="queued", run_type="backfill", note=None, conf=None):
    start = interval_start or day
    return {
        "dag_run_id": f"run-{day}",
        "logical_date": f"{day}T00:00:00Z",
        "data_interval_start": f"{start}T00:00:00Z",
        "state": state,
        "run_type": run_type,
        "note": note,
        "conf": conf or {},
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


def test_a_run_triggered_at_another_hour_is_in_nobody_s_way():
    at_noon = a_run(DAYS[0], state="success") | {"dag_run_id": "by hand", "logical_date": f"{DAYS[0]}T12:00:00Z"}
    api = PlayedApi(runs=[at_noon])
    lay_out_backfill(api, DAYS[1:], conf={})
    lay_out_missed_days(api, DAYS[0])
    assert at_noon in api.runs


def test_a_run_that_was_cut_short_is_made_anew_so_that_its_note_is_gone():
    api = PlayedApi(runs=[a_run(DAYS[0], state="failed", note=CUT_SHORT)])
    lay_out_backfill(api, DAYS, conf={})
    assert [run["note"] for run in api.runs] == [None, None]


def test_a_run_of_the_day_itself_is_kept_to_run_again():
    api = PlayedApi(runs=[a_run(DAYS[0], state="success")])
    lay_out_backfill(api, DAYS, conf={})
    assert "DELETE" not in [method for method, _ in api.calls]


def test_leftovers_of_an_ended_airflow_are_closed():
    api = PlayedApi(runs=[a_run(DAYS[0], state="running"), a_run(DAYS[1])], open_backfills=[3, 4])
    close_leftovers(api)
    assert [(run["state"], run["note"]) for run in api.runs] == [("failed", CUT_SHORT)] * 2
    assert api.open_backfills == []


def test_a_scheduled_day_that_was_left_half_run_goes_on_where_days_are_scheduled():
    api = PlayedApi(runs=[a_run(DAYS[0], state="running"), a_run(DAYS[1], state="running", run_type="scheduled")])
    close_leftovers(api, backfills_only=True)
    assert [run["state"] for run in api.runs] == ["failed", "running"]


def days_of_january(*numbers):
    return [date(2024, 1, number) for number in numbers]


def laid_out(api):
    return [airflow_runs.day_of(run) for run in api.runs if run["dag_run_id"].startswith("missed")]


def test_days_that_airflow_would_go_past_are_laid_out_oldest_first_and_nothing_twice():
    runs = [a_run(day, state="success") for day in days_of_january(2, 5)]
    api = PlayedApi(runs=[*runs, a_run(date(2024, 1, 4), state="failed", run_type="scheduled", note=CUT_SHORT)])
    for _ in range(2):
        lay_out_missed_days(api, date(2024, 1, 1))
        assert laid_out(api) == days_of_january(1, 3, 4)
    assert len(api.runs) == 5
    missed = api.runs[-1]
    assert missed["data_interval_start"] == missed["logical_date"] == "2024-01-04T00:00:00+00:00"
    assert missed["data_interval_end"] == missed["run_after"] == "2024-01-05T00:00:00+00:00"


def test_a_day_that_failed_by_itself_is_not_laid_out_again_nor_one_that_goes_on():
    api = PlayedApi(runs=[a_run(DAYS[0], state="failed"), a_run(DAYS[1], state="running", run_type="scheduled")])
    lay_out_missed_days(api, DAYS[0])
    assert laid_out(api) == []


def test_missed_days_that_were_cut_short_themselves_are_laid_out_again():
    api = PlayedApi(runs=[a_run(date(2024, 1, 3), state="success")])
    for _ in range(2):
        lay_out_missed_days(api, DAYS[0])
        close_leftovers(api)
    lay_out_missed_days(api, DAYS[0])
    assert laid_out(api) == DAYS
    assert [run["state"] for run in api.runs] == ["success", "queued", "queued"]


def test_a_day_of_a_backfill_that_was_cut_short_runs_as_it_was_asked_for():
    asked = a_run(DAYS[0], state="failed", note=CUT_SHORT, conf={"force": True})
    by_itself = a_run(DAYS[1], state="failed", run_type="scheduled", note=CUT_SHORT, conf={})
    api = PlayedApi(runs=[asked, by_itself])
    lay_out_missed_days(api, DAYS[0])
    assert [run["conf"] for run in api.runs] == [{"force": True}, {MISSED: True}]


def test_a_run_for_the_day_before_on_today_s_date_does_not_stop_the_schedule_tomorrow():
    today = datetime.now(UTC).date()
    by_hand = a_run(today, interval_start=today - timedelta(days=1), state="success", run_type="manual")
    api = PlayedApi(runs=[by_hand])
    lay_out_missed_days(api, DAYS[0])
    assert api.runs == []


def test_a_run_for_the_day_before_does_not_stand_for_the_day_of_its_date():
    api = PlayedApi(runs=[a_run(DAYS[1], interval_start=DAYS[0], state="success", run_type="manual")])
    lay_out_missed_days(api, DAYS[0])
    assert laid_out(api) == DAYS
    going_on = a_run(DAYS[1], interval_start=DAYS[0], state="running", run_type="manual")
    api = PlayedApi(runs=[going_on])
    lay_out_missed_days(api, DAYS[0])
    assert laid_out(api) == DAYS[:1]


def test_a_schedule_that_has_no_run_yet_or_lies_ahead_is_left_to_airflow():
    api = PlayedApi(runs=[a_run(DAYS[0], state="success")])
    for first in (date(2024, 1, 2), date(2100, 1, 1)):
        lay_out_missed_days(api, first)
    assert len(api.runs) == 1


def test_more_runs_than_fit_a_page_are_all_found():
    runs = [a_run(date(2024, 1, 1), state="success") for _ in range(250)]
    assert len(runs_of(PlayedApi(runs=runs), DAYS)) == 250


@pytest.mark.parametrize(("state", "remains"), [("success", False), ("failed", False), ("running", True)])
def test_a_run_by_hand_on_the_date_the_schedule_goes_on_with_is_removed_once_it_has_ended(state, remains):
    by_hand = a_run(DAYS[1], interval_start=DAYS[0], state=state, run_type="manual")
    api = PlayedApi(runs=[by_hand, a_run(DAYS[0], state="success")], next_date=f"{DAYS[1]}T00:00:00Z")
    make_way_for_schedule(api)
    assert [run["dag_run_id"] for run in api.runs] == [
        f"run-{day}" for day in (DAYS[:0:-1] if remains else []) + DAYS[:1]
    ]


@pytest.mark.parametrize("next_date", [None, f"{DAYS[1]}T00:00:00Z"])
def test_the_schedule_s_own_runs_and_those_on_other_dates_stay(next_date):
    runs = [a_run(day, state="success", run_type="scheduled") for day in DAYS]
    other = a_run(DAYS[1] + timedelta(days=1), interval_start=DAYS[1], state="success", run_type="manual")
    api = PlayedApi(runs=[*runs, other], next_date=next_date)
    make_way_for_schedule(api)
    assert api.runs == [*runs, other]


def test_a_run_by_hand_on_a_date_that_is_not_due_stays():
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    by_hand = a_run(tomorrow, interval_start=tomorrow - timedelta(days=1), state="failed", run_type="manual")
    api = PlayedApi(runs=[by_hand], next_date=f"{tomorrow}T00:00:00Z")
    make_way_for_schedule(api)
    assert api.runs == [by_hand]
