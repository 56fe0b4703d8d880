"""Days that run by themselves, in the real scheduler, with stages that take no time (stub_stages/)."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from bahe_tasks.config import AirflowConfig, Config
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
    """A home folder whose schedule began three days ago."""
    home = tmp_path_factory.mktemp("home")
    (home / "bahe.yaml").write_text(f"airflow: {{retries: 0, schedule_start: {past_days[0]}}}\n", encoding="utf-8")
    return Config(home=home, airflow=AirflowConfig(retries=0, schedule_start=str(past_days[0])))


@pytest.fixture(scope="module")
def backfilled(config):
    """What a backfill of a day before the schedule's first came to."""
    return run_backfill_in_airflow(config, EARLIER, EARLIER)


@pytest.fixture(scope="module")
def runs(config, backfilled, past_days):
    """All runs, in the order they began, once as many have ended as days are over; the DAG was never touched on the page."""
    with running_airflow(config, schedules=True) as server:
        server.start_scheduler()
        deadline = time.monotonic() + 300
        while True:
            server.check()
            found = server.api.get(RUNS, order_by="start_date", limit=100)["dag_runs"]
            if sum(run["state"] in ("success", "failed") for run in found) > len(past_days):
                return found
            assert time.monotonic() < deadline, [run["state"] for run in found]
            time.sleep(0.5)


def test_a_backfill_of_a_day_before_the_schedule_runs_its_tasks(backfilled):
    assert backfilled[0].state == "done"


def test_a_backfill_starts_no_day_of_the_schedule_and_then_all_that_were_missed_run_oldest_first(runs, past_days):
    days = [datetime.fromisoformat(run["data_interval_start"]).date() for run in runs]
    assert list(zip([run["run_type"] for run in runs], days, strict=True)) == [
        ("backfill", EARLIER),
        *(("scheduled", day) for day in past_days),
    ]


def test_scheduled_days_run_one_at_a_time(runs):
    for earlier, later in pairwise(runs):
        assert earlier["end_date"] <= later["start_date"]
