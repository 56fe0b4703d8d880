"""Days that run by themselves, in the real scheduler, with stages that take no time (stub_stages/)."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from bahe_tasks.config import load_config
from bahe_tasks.engines.airflow_backfill import run_backfill_in_airflow
from bahe_tasks.engines.airflow_runs import RUNS
from bahe_tasks.engines.airflow_server import running_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.e2e]

EARLIER = date(2024, 1, 1)


@pytest.fixture(scope="module")
def past_days():
    """The three days that are over."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=n) for n in (3, 2, 1)]


@pytest.fixture(scope="module")
def config(past_days, tmp_path_factory, stub_stages):
    """A home folder whose schedule began three days ago; all days but the last have landed."""
    home = tmp_path_factory.mktemp("home")
    settings = f"{{retries: 0, schedule_start: {past_days[0]}, wait_for: ['impressions/dt={{day}}/_SUCCESS']}}"
    (home / "bahe.yaml").write_text(f"airflow: {settings}\n", encoding="utf-8")
    for day in past_days[:-1]:
        (home / "landing" / "impressions" / f"dt={day}").mkdir(parents=True)
        (home / "landing" / "impressions" / f"dt={day}" / "_SUCCESS").touch()
    return load_config(home)


@pytest.fixture(scope="module")
def backfilled(config):
    """What a backfill of a day before the schedule's first came to."""
    return run_backfill_in_airflow(config, EARLIER, EARLIER)


@pytest.fixture(scope="module")
def waiting(config, backfilled, past_days):
    """All runs in the order they began, and the tasks of the last, which waits. The DAG was never touched on the page."""
    with running_airflow(config, schedules=True) as server:
        server.start_scheduler()
        deadline = time.monotonic() + 300
        while True:
            server.check()
            found = server.api.get(RUNS, order_by="start_date", limit=100)["dag_runs"]
            last = server.api.get(f"{RUNS}/{found[-1]['dag_run_id']}/taskInstances")["task_instances"]
            states = {task["task_id"]: task["state"] for task in last}
            if len(found) > len(past_days) and states["wait_for_landing"] == "up_for_reschedule":
                return found, states
            assert time.monotonic() < deadline, (found, states)
            time.sleep(0.5)


def test_a_backfill_of_a_day_before_the_schedule_runs_its_tasks(backfilled):
    assert backfilled[0].state == "done"


def test_a_backfill_starts_no_day_of_the_schedule_and_then_all_that_were_missed_run_oldest_first(waiting, past_days):
    runs, _ = waiting
    days = [datetime.fromisoformat(run["data_interval_start"]).date() for run in runs]
    assert list(zip([run["run_type"] for run in runs], days, strict=True)) == [
        ("backfill", EARLIER),
        *(("scheduled", day) for day in past_days),
    ]


def test_scheduled_days_run_one_at_a_time(waiting):
    runs, _ = waiting
    for earlier, later in pairwise(runs):
        assert earlier["end_date"] <= later["start_date"]


def test_a_day_that_has_not_landed_waits_and_does_nothing(waiting):
    runs, states = waiting
    assert runs[-1]["state"] == "running"
    assert {name for name, state in states.items() if state} == {"wait_for_landing"}
