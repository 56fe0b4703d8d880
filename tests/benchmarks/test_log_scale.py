"""The data path runs over growing days, each step has a row, and exponents are those of the two largest sizes."""

from __future__ import annotations

import pytest

from bahe_tasks.config import SparkConfig
from bahe_tasks.stores.delta_tables import count_stored
from bahe_tasks.stores.partition_records import partition_records
from benchmarks import log_scale


@pytest.mark.spark
def test_every_step_of_every_size_has_a_row(tmp_path):
    spark = SparkConfig(driver_memory="1g")
    document = log_scale.run(tmp_path, events=[300, 100], spark=spark)
    assert [row["step"] for row in document.rows] == [*log_scale.STEPS, *log_scale.STEPS]
    few, many = document.rows[0]["events"], document.rows[-1]["events"]
    assert 50 < few < 200 < many
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 and row["impressions"] > 0 for row in document.rows)
    assert set(document.figures) == {"exponent", *(f"exponent_{step}" for step in log_scale.STEPS)}


@pytest.mark.spark
@pytest.mark.parametrize("taken_over", [False, True])
def test_a_small_day_finds_a_state_of_each_size(tmp_path, taken_over):
    rows = log_scale.measure_state(tmp_path, SparkConfig(driver_memory="1g"), pairs=[600, 0], taken_over=taken_over)
    assert [row["state_pairs"] for row in rows] == [0, 600]
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 and row["impressions"] > 0 for row in rows)
    days = partition_records(tmp_path / "tables", "running_sums")
    *_, before, day = (
        count_stored(tmp_path / "tables", "running_sums", partitions=f"dt = '{dt}'") for dt in sorted(days)
    )
    assert before > 600
    assert (day > before) == taken_over


def test_the_exponent_is_the_slope_between_the_two_largest_sizes():
    seconds = {10: 5.0, 100: 1.0, 1000: 100.0}
    rows = [
        {"step": step, "events": events, "seconds": of * (2 if step == "collate" else 1)}
        for step in log_scale.STEPS
        for events, of in seconds.items()
    ]
    assert log_scale.figures(rows) == pytest.approx({f"exponent_{s}": 2.0 for s in log_scale.STEPS} | {"exponent": 2.0})


def test_one_size_has_no_exponent():
    assert log_scale.figures([{"step": step, "events": 10, "seconds": 1.0} for step in log_scale.STEPS]) == {}
