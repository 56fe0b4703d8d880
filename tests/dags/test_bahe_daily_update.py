"""The DAG's structure and policy, as Airflow reads them from the file."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dags
from bahe_tasks.engines.airflow_home import POOLS
from bahe_tasks.engines.day_outcome import TASK_ORDER
from bahe_tasks.schemas import TABLES

pytestmark = pytest.mark.airflow

DAG_FILE = Path(dags.__file__).parent / "bahe_daily_update.py"
HEAVY = ("torch", "pyspark", "transformers", "mlflow", "pandas", "numpy", "great_expectations", "deltalake", "pyarrow")


@pytest.fixture(scope="module")
def dag_bag():
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(DAG_FILE.parent)


@pytest.fixture(scope="module")
def dag(dag_bag):
    return dag_bag.dags["bahe_daily_update"]


def test_the_folder_holds_this_dag_alone_and_it_loads(dag_bag):
    assert dag_bag.import_errors == {}
    assert list(dag_bag.dags) == ["bahe_daily_update"]


def test_the_tasks_are_one_chain_in_the_order_of_the_design(dag):
    for task_id, following in zip(TASK_ORDER, [*TASK_ORDER[1:], None], strict=True):
        assert dag.get_task(task_id).downstream_task_ids == ({following} if following else set())
    assert set(dag.task_ids) == set(TASK_ORDER)


def test_a_day_waits_for_its_landing_where_the_settings_say_what_for(tmp_path, monkeypatch):
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "bahe.yaml").write_text('airflow: {wait_for: ["impressions/dt={day}/_SUCCESS"]}')
    monkeypatch.setenv("BAHE_HOME", str(tmp_path))
    dag = DagBag(DAG_FILE.parent).dags["bahe_daily_update"]
    sensor = dag.get_task("wait_for_landing")
    assert sensor.downstream_task_ids == {"dedup_behaviors"}
    assert sensor.reschedule  # it takes no slot while it waits


def test_the_interval_of_a_date_is_that_day(dag):
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
    day = datetime(2013, 9, 24, tzinfo=UTC)
    info = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(earliest=day, latest=None, catchup=True)
    )
    assert type(dag.timetable).__name__ == "CronDataIntervalTimetable"
    assert dag.timetable.expression == "0 0 * * *"
    assert (info.logical_date, info.data_interval.end) == (day, day + timedelta(days=1))


def test_no_run_starts_by_itself_until_schedule_start_is_set_and_then_every_day_in_turn(dag):
    assert dag.start_date == datetime(2100, 1, 1, tzinfo=UTC)  # the default of airflow.schedule_start
    assert dag.catchup is True
    assert dag.max_active_runs == 1
    assert not any(task.depends_on_past for task in dag.tasks)


def test_what_can_heal_is_retried_with_growing_pauses(dag):
    for task in dag.tasks:
        assert task.retries == 2  # the default of airflow.retries
        assert task.retry_delay == timedelta(seconds=30)
        assert task.retry_exponential_backoff
        assert task.max_retry_delay == timedelta(minutes=10)


def test_every_pool_a_task_names_is_made_at_start_up(dag):
    assert {task.pool for task in dag.tasks} <= {*POOLS, "default_pool"}


def test_encoding_to_publishing_is_serialised_by_a_pool_of_one_slot(dag):
    chain = TASK_ORDER[TASK_ORDER.index("encode_behaviors") :]
    assert {dag.get_task(task_id).pool for task_id in chain} == {"bahe_training"}
    assert POOLS["bahe_training"] == 1


def test_every_task_and_the_dag_say_what_they_do_and_whose_they_are(dag):
    assert "parameter `day`" in dag.doc_md
    assert {"bahe", "daily"} <= set(dag.tags)
    for task in dag.tasks:
        assert task.doc_md
        assert task.owner == "bahe"


def test_every_table_is_the_asset_of_some_task(dag):
    outlets = {outlet.name: outlet.uri for task in dag.tasks for outlet in task.outlets}
    assert outlets == {name: f"bahe://tables/{name}" for name in TABLES}


def test_a_task_pushes_one_document_not_one_value_a_key(dag):
    assert not any(task.multiple_outputs for task in dag.tasks)


def test_the_parameter_day_takes_a_day_of_the_calendar_or_nothing(dag):
    from airflow.sdk.exceptions import ParamValidationError

    params = dag.params
    assert params.dump() == {"day": None, "force": False, "accept_inputs": None}
    params["day"] = "2013-09-24"
    params.validate()
    with pytest.raises((ParamValidationError, ValueError)):
        params["day"] = "2013-02-31"
    params["day"] = None


def test_parsing_the_file_imports_nothing_heavy():
    probe = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        f"print(*[name for name in {HEAVY!r} + ('bahe_tasks.stages.fine_tune', 'spark_jobs.session') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(DAG_FILE)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_file_stays_within_150_lines():
    assert len(DAG_FILE.read_text(encoding="utf-8").splitlines()) <= 150
