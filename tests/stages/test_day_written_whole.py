"""A day's tables hold what stood in its landing when it was read, all of them or none."""

from __future__ import annotations

import shutil

import pytest
from handmade_rows import day_of
from handmade_sums_log import FIRST, random_log
from sums_home import Home

from bahe_tasks.config import Config, SparkConfig
from bahe_tasks.stores.delta_tables import table_version
from spark_jobs import dedup_behaviors as job
from spark_jobs.landing_files import UnreadableFileError
from spark_jobs.session import FOR_MANY_DAYS, spark_session

pytestmark = pytest.mark.spark
DERIVED = ("user_sequences", "new_behaviors", "running_sums", "impressions")


@pytest.fixture(scope="module", autouse=True)
def spark():
    return spark_session(SparkConfig(driver_memory="1g", jvm_options=FOR_MANY_DAYS), app_name="tests")


@pytest.fixture
def home(tmp_path):
    """A home with two landed days, of which none was run."""
    home = Home(Config(home=tmp_path))
    home.land(*random_log(3, days=[FIRST, FIRST + 1], rows_a_day=20, plain=True))
    return home


@pytest.mark.parametrize(("source", "landed"), [("impressions", FIRST + 1), ("behavior_events", FIRST)])
def test_a_landing_that_changes_while_it_is_read_fails_the_day_and_leaves_no_half_of_it(
    home, monkeypatch, source, landed
):
    folder = home.config.landing_dir / source / f"dt={day_of(landed)}"
    whole = (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])  # a copy is under way
    count = job.count_rows

    def copied_meanwhile(*args, **named):
        (folder / "rows.jsonl").write_bytes(whole)
        return count(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(job, "count_rows", copied_meanwhile)
        with pytest.raises(job.LandingChangedError, match=f"^{source}/dt={day_of(landed)} changed while the run read"):
            home.run(FIRST + 1)
    assert table_version(home.config.tables_dir, "impressions") is None
    home.run(FIRST + 1)
    twin = Home(Config(home=home.config.home / "twin", landing=home.config.landing))
    shutil.copytree(home.config.landing_dir, twin.config.landing_dir)
    twin.run(FIRST + 1)
    for table in (*DERIVED, source):
        assert home.rows_of(table) == twin.rows_of(table), table


def test_what_no_run_reads_may_land_meanwhile(home, monkeypatch):
    folder = home.config.landing_dir / "impressions" / f"dt={day_of(FIRST)}"
    count = job.count_rows

    def shipped_meanwhile(*args, **named):
        for name in ("more.jsonl.part", "_SUCCESS", ".hidden.jsonl"):
            (folder / name).write_text("{")
        return count(*args, **named)

    monkeypatch.setattr(job, "count_rows", shipped_meanwhile)
    home.run(FIRST)
    assert table_version(home.config.tables_dir, "impressions") is not None


def test_a_file_that_is_broken_for_being_written_just_then_may_be_run_again(home, monkeypatch):
    folder = home.config.landing_dir / "impressions" / f"dt={day_of(FIRST)}"
    (folder / "more.parquet").write_bytes(b"PAR1, and no end yet")
    settle = job.settled_landing

    def still_written(*args, **named):
        (folder / "more.parquet").write_bytes(b"PAR1, and no end yet either")
        return settle(*args, **named)

    with pytest.raises(UnreadableFileError, match=r"more\.parquet"):
        home.run(FIRST)
    monkeypatch.setattr(job, "settled_landing", still_written)
    with pytest.raises(job.LandingChangedError, match="impressions/dt="):
        home.run(FIRST)


@pytest.mark.parametrize("lost", DERIVED)
def test_a_table_that_was_lost_is_written_again_with_the_days(home, lost):
    days = [FIRST, FIRST + 1]
    for day in days:
        home.run(day)
    before = {table: home.rows_of(table) for table in DERIVED}
    shutil.rmtree(home.config.tables_dir / lost)
    for day in days:
        home.run(day)
    assert {table: home.rows_of(table) for table in DERIVED} == before
