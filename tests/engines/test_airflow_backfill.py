"""A backfill through the real scheduler, with stages that take no time (stub_stages/)."""

from __future__ import annotations

import os
import time
from datetime import date

import psutil
import pytest

from bahe_tasks.config import AirflowConfig, Config
from bahe_tasks.engines.airflow_backfill import run_backfill_in_airflow
from bahe_tasks.engines.airflow_home import DAG_ID
from bahe_tasks.engines.airflow_runs import RUNS, runs_of
from bahe_tasks.engines.airflow_server import running_airflow
from bahe_tasks.engines.day_outcome import TASK_ORDER

pytestmark = [pytest.mark.airflow, pytest.mark.e2e]

DAYS = [date(2024, 1, n) for n in range(1, 6)]


@pytest.fixture(scope="module")
def config(tmp_path_factory, stub_stages):
    """A home folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "bahe.yaml").write_text("airflow: {retries: 0}\n", encoding="utf-8")
    return Config(home=home, airflow=AirflowConfig(retries=0))


@pytest.fixture(scope="module")
def hand_runs(config):
    """Runs triggered as from the page: name → (run, task states, XComs `problem`); Airflow is ended afterwards."""
    bodies = {
        "with a day": {"logical_date": None, "conf": {"day": "2024-01-01"}},
        "with neither": {"logical_date": None},
        "with a date": {"logical_date": "2024-01-02T00:00:00Z"},
    }
    with running_airflow(config, schedules=False) as server:
        server.start_scheduler()
        server.api.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
        runs = {name: server.api.call("POST", RUNS, body)["dag_run_id"] for name, body in bodies.items()}
        return {name: _ended_run(server, run_id) for name, run_id in runs.items()}


def _ended_run(server, run_id):
    deadline = time.monotonic() + 300
    while (run := server.api.get(f"{RUNS}/{run_id}"))["state"] not in ("success", "failed"):
        server.check()
        assert time.monotonic() < deadline, f"{run_id} has not ended"
        time.sleep(0.5)
    tasks = server.api.get(f"{RUNS}/{run_id}/taskInstances")["task_instances"]
    states = {task["task_id"]: task["state"] for task in tasks}
    key = "problem" if "failed" in states.values() else "return_value"
    told = server.api.get(f"{RUNS}/{run_id}/taskInstances/dedup_behaviors/xcomEntries/{key}")["value"]
    return run, states, told


@pytest.fixture(scope="module")
def outcomes(config, hand_runs):
    """The five days; a run that was triggered by hand for one of their dates stands in the way."""
    return run_backfill_in_airflow(config, DAYS[0], DAYS[-1])


def test_a_run_triggered_with_a_day_and_no_date_runs_that_day(hand_runs):
    run, states, told = hand_runs["with a day"]
    assert (run["state"], run["data_interval_start"]) == ("success", None)
    assert states == dict.fromkeys(TASK_ORDER, "success")
    assert told["day"] == "2024-01-01"


def test_a_run_triggered_with_neither_fails_and_says_what_to_do(hand_runs):
    run, states, told = hand_runs["with neither"]
    assert run["state"] == "failed"
    assert states["validate_inputs"] == "upstream_failed"
    assert told["message"].startswith("InvalidDayError: this run has no data interval and no `day` parameter")


def test_a_run_triggered_with_a_date_runs_the_day_before_as_airflow_counts(hand_runs):
    _, states, told = hand_runs["with a date"]
    assert states == dict.fromkeys(TASK_ORDER, "success")
    assert told["day"] == "2024-01-01"


def test_every_day_runs_in_order_also_after_a_refused_one(outcomes):
    assert [outcome.day for outcome in outcomes] == DAYS
    assert [outcome.state for outcome in outcomes] == ["done", "refused", "no_impressions", "failed", "refused"]


def test_a_good_day_returns_what_its_tasks_returned(outcomes, config):
    assert outcomes[0].task_states == dict.fromkeys(TASK_ORDER, "success")
    assert list(outcomes[0].task_seconds) == list(TASK_ORDER)
    assert outcomes[0].results["dedup_behaviors"] == {
        "day": "2024-01-01",
        "force": False,
        "landing": str(config.landing_dir),
    }
    assert outcomes[0].results["register_challenger"] == {"version": 1, "of": "run-2024-01-01"}
    assert outcomes[0].results["publish_embeddings"] == {"published": 1}
    assert outcomes[0].message == ""


def test_a_refused_day_is_red_at_its_gate_and_says_why(outcomes):
    for outcome, gate in ((outcomes[1], "validate_inputs"), (outcomes[4], "validate_challenger")):
        place = TASK_ORDER.index(gate)
        assert [outcome.task_states[task] for task in TASK_ORDER[:place]] == ["success"] * place
        assert outcome.task_states[gate] == "failed"
        assert {outcome.task_states[task] for task in TASK_ORDER[place + 1 :]} == {"upstream_failed"}
    assert outcomes[1].message == "inputs of 2024-01-02 refused"
    assert outcomes[4].message == "version 5 refused"


def test_a_day_without_impressions_is_green_with_the_rest_skipped(outcomes):
    assert outcomes[2].results["fine_tune"] == {"state": "no_impressions"}
    assert {outcomes[2].task_states[task] for task in TASK_ORDER[3:]} == {"skipped"}


def test_a_day_with_nothing_landed_fails_with_the_reason(outcomes):
    assert outcomes[3].message == "NothingLandedError: 2024-01-04 has no files"


def test_nothing_that_was_started_survives(outcomes, config):
    home = str(config.home)
    running = (p.info for p in psutil.process_iter(["cmdline", "environ", "status"]) if p.pid != os.getpid())
    left = [p["cmdline"] for p in running if (p["environ"] or {}).get("BAHE_HOME") == home and p["status"] != "zombie"]
    assert left == []


def test_days_run_again_and_inputs_can_be_accepted(outcomes, config):
    again = run_backfill_in_airflow(config, DAYS[1], DAYS[1], force=True, accept_inputs="looked at")
    assert [outcome.state for outcome in again] == ["done"]
    assert again[0].results["dedup_behaviors"]["force"] is True


def test_a_day_of_a_backfill_that_ended_runs_again_when_it_is_cleared_on_the_page(outcomes, config):
    with running_airflow(config, schedules=False) as server:
        server.start_scheduler()
        (run,) = runs_of(server.api, DAYS[:1])
        cleared = {"dag_run_id": run["dag_run_id"], "task_ids": ["fine_tune"], "include_downstream": True}
        body = {**cleared, "dry_run": False, "only_failed": False}
        server.api.call("POST", f"dags/{DAG_ID}/clearTaskInstances", body)
        again, states, _ = _ended_run(server, run["dag_run_id"])
    assert (again["state"], states) == ("success", dict.fromkeys(TASK_ORDER, "success"))
    assert again["end_date"] > run["end_date"]
