"""A stage as a task: the day it gets, and what becomes of its errors."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from bahe_tasks.config import AirflowConfig
from bahe_tasks.stages.errors import GateRefused, NothingLandedError

pytestmark = pytest.mark.airflow

INTERVAL_START = datetime(2013, 9, 24, tzinfo=UTC)


class FakeTaskInstance:
    """Keeps what is pushed."""

    def __init__(self):
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


@pytest.fixture
def airflow_task(tmp_path, monkeypatch):
    from bahe_tasks.engines import airflow_task

    (tmp_path / "bahe.yaml").write_text("airflow: {retries: 5}\n", encoding="utf-8")
    monkeypatch.setenv("BAHE_HOME", str(tmp_path))
    return airflow_task


@pytest.fixture
def run_as(airflow_task, monkeypatch):
    """Return run(stage, ...) → (result, pushed XComs), in a run with the given interval and parameter `day`."""

    def run(stage, *, interval_start=INTERVAL_START, day=None):
        context = {"params": {"day": day, "force": False, "accept_inputs": None}, "ti": FakeTaskInstance()}
        if interval_start is not None:
            context["data_interval_start"] = interval_start
        monkeypatch.setattr(airflow_task, "get_current_context", lambda: context)
        run.pushed = context["ti"].pushed
        return airflow_task.run_stage(stage)

    return run


def raising(error):
    def stage(day, config, params):
        raise error

    return stage


def day_of_stage(day, config, params):
    return {"day": day}


def test_the_day_is_the_start_of_the_data_interval(run_as):
    assert run_as(day_of_stage) == {"day": date(2013, 9, 24)}


def test_the_parameter_day_wins_over_the_data_interval(run_as):
    assert run_as(day_of_stage, day="2013-10-01") == {"day": date(2013, 10, 1)}


def test_the_parameter_day_is_enough(run_as):
    assert run_as(day_of_stage, interval_start=None, day="2013-10-01") == {"day": date(2013, 10, 1)}


def test_a_run_with_neither_fails_without_a_retry_and_says_what_to_do(run_as):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r'with the configuration \{"day": "YYYY-MM-DD"\}'):
        run_as(day_of_stage, interval_start=None)
    assert run_as.pushed["problem"]["state"] == "failed"


def test_a_refused_gate_is_told_as_refused_and_not_retried_and_has_pages(run_as, airflow_task, monkeypatch):
    from airflow.sdk.exceptions import AirflowFailException

    written = []
    monkeypatch.setattr(airflow_task, "write_pages", lambda: written.append("pages"))
    with pytest.raises(AirflowFailException):
        run_as(raising(GateRefused("too few rows")))
    assert run_as.pushed["problem"] == {"state": "refused", "message": "too few rows"}
    assert written == ["pages"]


@pytest.mark.parametrize(
    "error", [NothingLandedError("no files"), ValueError("bad setting"), FileNotFoundError("gone")]
)
def test_what_a_retry_cannot_heal_is_not_retried(run_as, error):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=str(error)):
        run_as(raising(error))
    assert run_as.pushed["problem"]["state"] == "failed"


def test_what_may_heal_is_raised_as_it_is(run_as):
    with pytest.raises(ConnectionError):
        run_as(raising(ConnectionError("reset")))
    assert run_as.pushed["problem"] == {"state": "failed", "message": "ConnectionError: reset"}


def test_a_chunk_of_an_encode_that_vanished_is_retried(run_as):
    from bahe_tasks.core.encoder import LostChunkError

    with pytest.raises(LostChunkError):
        run_as(raising(LostChunkError("removed by another run")))


def test_a_skipped_task_keeps_what_it_returned(airflow_task, monkeypatch):
    from airflow.sdk.exceptions import AirflowSkipException

    instance = FakeTaskInstance()
    monkeypatch.setattr(airflow_task, "get_current_context", lambda: {"ti": instance})
    with pytest.raises(AirflowSkipException):
        airflow_task.skip_with({"state": "no_impressions"})
    assert instance.pushed == {"return_value": {"state": "no_impressions"}}


def test_the_settings_come_from_the_home_folder_and_are_the_defaults_without_one(airflow_task, monkeypatch, tmp_path):
    assert airflow_task.airflow_settings().retries == 5
    monkeypatch.setenv("BAHE_HOME", str(tmp_path / "none"))
    assert airflow_task.airflow_settings() == AirflowConfig()


def days_ago(count):
    return datetime.now(UTC).date() - timedelta(days=count)


@pytest.fixture
def poke(airflow_task, monkeypatch, tmp_path):
    """Return poke(day, run_type) → whether a sensor of two files lets the day's run pass."""
    monkeypatch.setenv("BAHE_LANDING", str(tmp_path))
    settings = AirflowConfig(wait_for=("items/{day}", "impressions/dt={day}/_SUCCESS"))
    sensor = airflow_task.LandingSensor(task_id="wait_for_landing", settings=settings)

    def poke(day, run_type="scheduled", conf=None):
        run = SimpleNamespace(run_type=run_type, conf=conf)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return sensor.poke({"dag_run": run, "data_interval_start": start, "params": {"day": None}})

    return poke


def land(landing, path):
    (landing / path).parent.mkdir(parents=True)
    (landing / path).touch()


def test_a_day_that_runs_by_itself_waits_until_every_file_it_waits_for_is_there(poke, tmp_path):
    day = days_ago(1)
    told = [poke(day)]
    for path in (f"items/{day}", f"impressions/dt={day}/_SUCCESS"):
        land(tmp_path, path)
        told.append(poke(day))
    assert told == [False, False, True]


def test_a_day_that_somebody_asked_for_does_not_wait(poke):
    assert poke(days_ago(1), "backfill")
    assert poke(days_ago(1), "manual")


def test_a_day_that_was_laid_out_since_it_was_missed_waits_until_somebody_asks_for_it(poke):
    assert not poke(days_ago(1), "manual", {"missed": True})
    assert poke(days_ago(1), "backfill", {"missed": True})


def test_a_day_that_has_not_landed_a_day_after_its_end_fails_and_says_how_to_run_it(poke, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    day = days_ago(2)
    land(tmp_path, f"items/{day}")
    with pytest.raises(AirflowFailException, match=f"no impressions/dt={day}/_SUCCESS in .*`bahe run-day {day}`"):
        poke(day)


def test_a_day_that_landed_late_runs(poke, tmp_path):
    day = days_ago(9)
    for path in (f"items/{day}", f"impressions/dt={day}/_SUCCESS"):
        land(tmp_path, path)
    assert poke(day)


def test_days_from_schedule_start_on_run_by_themselves_missed_ones_too(airflow_task):
    settings = AirflowConfig(schedule_start="2030-05-01")
    assert airflow_task.starts(settings) == {"start_date": datetime(2030, 5, 1, tzinfo=UTC), "catchup": True}


def test_an_airflow_without_a_schedule_takes_runs_of_any_date(airflow_task, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE", "False")
    settings = AirflowConfig(schedule_start="2030-05-01")
    assert airflow_task.starts(settings) == {"start_date": datetime(2000, 1, 1, tzinfo=UTC), "catchup": False}
