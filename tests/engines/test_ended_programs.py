"""A program of the embedded Airflow that ends is named, though it is the API that is missed first."""

from __future__ import annotations

import subprocess

import pytest

from bahe_tasks.config import Config
from bahe_tasks.engines import airflow_server
from bahe_tasks.engines.airflow_api import AirflowApi, AirflowApiError
from bahe_tasks.engines.airflow_home import airflow_home
from bahe_tasks.engines.airflow_server import AirflowStartError, running_airflow

NOBODY = AirflowApi("http://127.0.0.1:1")


@pytest.fixture
def missed(tmp_path, monkeypatch):
    """Run something in an Airflow whose keeper is a shell script; return the error that it ended with."""
    airflow_home(Config(home=tmp_path)).mkdir(parents=True, exist_ok=True)
    for name in ("write_settings", "_migrate", "_wait_until_ready", "_make_pools", "close_leftovers"):
        monkeypatch.setattr(airflow_server, name, lambda *_, **__: None)
    monkeypatch.setattr(airflow_server, "_let_ended_backfills_run", lambda _: None)
    monkeypatch.setattr(airflow_server, "KEEPER_ENDS_S", 2.0)

    def ended(script: str, call) -> RuntimeError:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        keeper = subprocess.Popen(["sh", "-c", script], **pipes)
        monkeypatch.setattr(airflow_server, "_start_keeper", lambda *_, **__: keeper)
        with pytest.raises(RuntimeError) as error, running_airflow(Config(home=tmp_path), schedules=False):
            call()
        return error.value

    return ended


def not_answered():
    NOBODY.call("GET", "dags", retry=False)


def refused():
    raise AirflowApiError("no such run", status=404)


def test_the_program_that_ended_is_named_once_the_keeper_says_so(missed):
    error = missed("sleep 0.5; echo scheduler", not_answered)
    assert isinstance(error, AirflowStartError)
    assert "Airflow's scheduler ended by itself; see " in str(error)
    assert str(error).endswith("scheduler.log")
    assert isinstance(error.__context__, AirflowApiError)


def test_where_no_program_ended_the_api_s_own_error_is_raised(missed):
    for call, message in ((not_answered, "does not answer"), (refused, "no such run")):
        error = missed("cat > /dev/null", call)
        assert isinstance(error, AirflowApiError)
        assert message in str(error)
