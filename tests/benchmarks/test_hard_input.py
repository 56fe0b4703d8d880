"""The hard days are as hard as they say, and each is measured."""

import pyarrow.dataset as ds
import pytest

from benchmarks import hard_input
from benchmarks.kit.landed_day import DAY


def test_a_day_is_landed_in_as_many_files_as_asked_for(tmp_path):
    hard_input.land_files(tmp_path, form="parquet", num_files=3, rows_a_file=2)
    files = sorted((tmp_path / "behavior_events" / f"dt={DAY}").iterdir())
    assert len(files) == 3
    assert [row["occurred_at"] for row in ds.dataset(files).to_table().to_pylist()] == [
        f"{DAY}T00:00:{n:02}Z" for n in range(6)
    ]


@pytest.mark.spark
def test_every_case_is_measured(tmp_path):
    document = hard_input.run(tmp_path, num_files=2, num_impressions=8, driver_memory="1g")
    assert [(row["case"], row["rows"], row["files"]) for row in document.rows] == [
        (hard_input.ONE_FILE, 2, 1),
        *[(form, 2, 2) for form in hard_input.FORMATS],
        ("sequences", 8, 0),
    ]
    assert all(row["seconds"] > 0 for row in document.rows)
    assert document.figures["behaviors_per_s"] > 0
