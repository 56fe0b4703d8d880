"""What a day without impressions says of the files that should have them."""

from __future__ import annotations

from datetime import date

import pytest

from bahe_tasks.config import Config
from bahe_tasks.engines import airflow_backfill, inline
from bahe_tasks.engines.day_outcome import DayOutcome, why_no_impressions

DAY = date(2024, 1, 2)
NO_ROW, SOME = ({"dedup_behaviors": {"impressions": {"landed": landed}}} for landed in (0, 20))


@pytest.fixture
def land(tmp_path):
    folder = tmp_path / "landing" / "impressions" / f"dt={DAY}"
    folder.mkdir(parents=True)
    return lambda name: (folder / name).touch()


def told(tmp_path, results=NO_ROW):
    return why_no_impressions(DAY, results, tmp_path / "landing")


def test_of_nothing_that_landed_nothing_is_said(tmp_path, land):
    assert told(tmp_path) == ""
    assert why_no_impressions(DAY, NO_ROW, tmp_path / "no landing") == ""


def test_files_without_a_row_and_files_that_are_not_read_are_named(tmp_path, land):
    land("part-0.jsonl.gz")
    unread = f"not read, being folders or of another ending than .jsonl, .csv, .parquet: impressions/dt={DAY}/part-0.jsonl.gz"
    assert told(tmp_path) == unread
    land("part-1.jsonl")
    assert told(tmp_path) == f"files without a row in impressions/dt={DAY}: part-1.jsonl; {unread}"
    land("part-2.csv")
    assert "part-1.jsonl, …; not read" in told(tmp_path)


def test_a_file_whose_rows_were_all_left_out_is_not_one_without_a_row(tmp_path, land):
    land("part-0.jsonl")
    assert told(tmp_path, SOME) == ""


def test_both_engines_say_so(tmp_path, land, monkeypatch):
    land("part-0.jsonl")
    config = Config(home=tmp_path)
    answers = {**NO_ROW, "validate_inputs": {}, "encode_behaviors": {}, "fine_tune": {"state": "no_impressions"}}
    for name, answer in answers.items():

        def stage(_day, _config, *, answer=answer, **_how):
            return answer

        stage.__name__ = name
        monkeypatch.setattr(inline, name, stage)
    here = inline.run_day(DAY, config)
    there = airflow_backfill._with_landing(DayOutcome(DAY, "no_impressions", 1.0, results=NO_ROW), config)
    assert here.state == "no_impressions"
    assert here.message == there.message == f"files without a row in impressions/dt={DAY}: part-0.jsonl"
