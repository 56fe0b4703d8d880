"""Days that run by themselves, in the real scheduler, with stages that take no time (stub_stages/).

One home folder lives through what stands in the way of a schedule: a backfill, an end in the middle of a day, a backfill of a
later day. Then nothing may be missing. What a day comes to hangs on the day of the month, and is not looked at.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from bahe_tasks.config import load_config
from bahe_tasks.engines.airflow_backfill import run_backfill_in_airflow
from bahe_tasks.engines.airflow_home import DAG_ID
from bahe_tasks.engines.airflow_runs import RUNS, lay_out_backfill
from bahe_tasks.engines.airflow_server import running_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.e2e]

EARLIER = date(2024, 1, 1)


@pytest.fixture(scope="module")
def past_days():
    """The five days that are over since the schedule began."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=n) for n in (5, 4, 3, 2, 1)]


@pytest.fixture(scope="module")
def config(past_days, tmp_path_factory, stub_stages):
    """A home folder; all days but the second and the last have landed."""
    home = tmp_path_factory.mktemp("home")
    settings = f"{{retries: 0, schedule_start: {past_days[0]}, wait_for: ['impressions/dt={{day}}/_SUCCESS']}}"
    (home / "bahe.yaml").write_text(f"airflow: {settings}\n", encoding="utf-8")
    for day in (past_days[0], past_days[2], past_days[3]):
        (home / "landing" / "impressions" / f"dt={day}").mkdir(parents=True)
        (home / "landing" / "impressions" / f"dt={day}" / "_SUCCESS").touch()
    return load_config(home)


@pytest.fixture(scope="module")
def backfilled(config):
    """What a backfill of a day before the schedule's first came to."""
    return run_backfill_in_airflow(config, EARLIER, EARLIER)


@pytest.fixture(scope="module")
def cut_short(config, backfilled, past_days):
    """The unfinished runs of an Airflow that ended in its first scheduled day, and in a backfill of the last but one.

    The DAG was not touched on the page before, and is paused there at the end.
    """
    with running_airflow(config, schedules=True) as server:
        lay_out_backfill(server.api, [past_days[3]], conf={})
        server.start_scheduler()
        _watch(server, lambda runs: any(run["run_type"] == "scheduled" and run["state"] == "running" for run in runs))
        server.api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": True})
        return [run for run in server.api.get(RUNS)["dag_runs"] if run["state"] in ("queued", "running")]


@pytest.fixture(scope="module")
def later_day(config, cut_short, past_days):
    """What a backfill of the third day came to, which no schedule had reached."""
    return run_backfill_in_airflow(config, past_days[2], past_days[2])


@pytest.fixture(scope="module")
def waiting(config, later_day):
    """Whether the DAG was paused still; then all runs in the order they began, and their tasks; the last waits."""
    with running_airflow(config, schedules=True) as server:
        was_paused = server.api.get(f"dags/{DAG_ID}")["is_paused"]
        server.api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
        server.start_scheduler()
        runs = _watch(server, lambda runs: _states(server, runs[-1]).get("wait_for_landing") == "up_for_reschedule")
        return was_paused, runs, [_states(server, run) for run in runs]


def _watch(server, is_enough):
    """Return all runs in the order they began, once they are enough."""
    deadline = time.monotonic() + 300
    while True:
        server.check()
        runs = server.api.get(RUNS, order_by="start_date", limit=100)["dag_runs"]
        if is_enough(runs):
            return runs
        assert time.monotonic() < deadline, runs
        time.sleep(0.5)


def _states(server, run):
    tasks = server.api.get(f"{RUNS}/{run['dag_run_id']}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in tasks}


def test_backfills_run_whatever_the_schedule_and_the_page_say(backfilled, later_day):
    for outcome in (*backfilled, *later_day):
        assert outcome.task_states["dedup_behaviors"] in ("success", "failed")


def test_the_schedule_begins_with_its_first_day_whatever_was_backfilled_before(cut_short, past_days):
    assert [_day(run) for run in cut_short if run["run_type"] == "scheduled"] == past_days[:1]
    assert [_day(run) for run in cut_short if run["run_type"] == "backfill"] == [past_days[3]]


def test_days_that_were_cut_short_or_gone_past_run_oldest_first_and_then_the_schedule_goes_on(waiting, past_days):
    _, runs, _ = waiting
    assert [(run["run_type"], _day(run)) for run in runs] == [
        ("backfill", EARLIER),
        ("backfill", past_days[2]),
        ("manual", past_days[0]),
        ("manual", past_days[1]),
        ("manual", past_days[3]),
        ("scheduled", past_days[4]),
    ]


def test_days_run_one_at_a_time(waiting):
    _, runs, _ = waiting
    for earlier, later in pairwise(runs):
        assert earlier["end_date"] <= later["start_date"]


def test_a_missed_day_that_never_landed_fails_at_once_and_holds_up_no_other(waiting):
    _, _, states = waiting
    waited = [state["wait_for_landing"] for state in states]
    assert waited == ["success", "success", "success", "failed", "success", "up_for_reschedule"]
    assert {state for name, state in states[3].items() if name != "wait_for_landing"} == {"upstream_failed"}


def test_a_day_that_has_not_landed_waits_and_does_nothing(waiting):
    _, _, states = waiting
    assert {name for name, state in states[-1].items() if state} == {"wait_for_landing"}


def test_a_backfill_leaves_the_dag_paused_if_it_was(waiting):
    assert waiting[0]


def _day(run):
    return datetime.fromisoformat(run["data_interval_start"]).date()
