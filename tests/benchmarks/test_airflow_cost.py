"""What is said of a day in Airflow beside the same day in one process."""

import pytest

from bahe_tasks.engines.day_outcome import TASK_ORDER
from benchmarks.airflow_cost import summarise


def day(seconds, of_task):
    return {"seconds": seconds, "task_seconds": dict.fromkeys(TASK_ORDER, of_task)}


def test_what_a_task_of_airflow_adds_is_its_process_and_the_time_between_tasks():
    inline = [day(900.0, 100.0), day(8.0, 1.0), day(10.0, 1.0)]
    airflow = [day(900.0, 100.0), day(40.0, 3.0), day(42.0, 4.0)]
    document = summarise(inline, airflow)
    assert [row["task"] for row in document.rows] == list(TASK_ORDER)
    assert {(row["inline_s"], row["airflow_s"], row["process_s"]) for row in document.rows} == {(1.0, 3.5, 2.5)}
    assert document.figures == pytest.approx(
        {
            "process_s": 2.5,
            "scheduling_s": (41 - 8 * 3.5) / 8,
            "overhead_s": (41 - 9) / 8,
            "inline_day_s": 9,
            "airflow_day_s": 41,
        }
    )


def test_one_day_stands_for_itself_and_a_task_that_did_not_run_took_no_time():
    skipped = {"seconds": 5.0, "task_seconds": {"dedup_behaviors": 4.0}}
    document = summarise([skipped], [skipped])
    assert [row["inline_s"] for row in document.rows] == [4.0, *[0.0] * 7]
    assert document.figures["scheduling_s"] == pytest.approx(1 / 8)
