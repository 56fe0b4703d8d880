"""Which landed files are others now, however they stand while the status looks, and what takes them in."""

from __future__ import annotations

import shutil
from datetime import date

import pytest
from typer.testing import CliRunner

from bahe_tasks import landing
from bahe_tasks.cli import app
from bahe_tasks.config import load_config
from bahe_tasks.landing import landing_fingerprint
from bahe_tasks.stages.landed_again import landed_again
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions

OLD, NEAR, RUN = date(2024, 1, 1), date(2024, 1, 2), date(2024, 3, 31)
"""`sequences.history_days` before the run, and a day less."""
COUNTS = {"landed": 1, "rows": 1, "duplicates": 0, "quarantined": 0}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "bahe.yaml").touch()
    return load_config(tmp_path)


def take_in(config, source, day, *, seen_ns=0):
    """Land a file and record that it was taken in, then land another in its place."""
    folder = config.landing_dir / source / f"dt={day}"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}\n")
    taken = landing_fingerprint(config.landing_dir, source, day)
    entry = {str(day): {"input_fingerprint": taken, "landed": taken, "counts": COUNTS, "landing_ns": seen_ns}}
    none = arrow_schema(source).empty_table()
    replace_partitions(config.tables_dir, source, none, predicate=f"dt = '{day}'", partitions=entry)
    (folder / "a.jsonl").write_text('{"other": 1}\n')
    return folder


def test_a_file_that_changed_and_cannot_be_read_is_another(config, monkeypatch):
    folder = take_in(config, "impressions", RUN)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(landing, "file_sha256", refused)
    assert landed_again(config) == {str(RUN): ["impressions"]}
    shutil.rmtree(folder)
    assert landed_again(config) == {}


def test_a_file_that_vanishes_while_the_status_looks_does_not_end_it(config, monkeypatch):
    folder = take_in(config, "impressions", RUN)
    (folder / "b.jsonl").write_text("{}\n")
    listed = landing.landed_files

    def and_gone(*of):
        files = listed(*of)
        (folder / "b.jsonl").unlink(missing_ok=True)
        return files

    monkeypatch.setattr(landing, "landed_files", and_gone)
    assert landed_again(config) == {}  # the next status sees it
    assert landed_again(config) == {str(RUN): ["impressions"]}


def test_a_folder_that_cannot_be_looked_at_tells_nothing(config, monkeypatch):
    take_in(config, "impressions", RUN)
    take_in(config, "items", RUN)
    (config.landing_dir / "items" / f"dt={RUN}" / "notes.txt").touch()
    listed = landing.Path.iterdir

    def refused(path):
        if path.parent.name == "impressions":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(landing.Path, "iterdir", refused)
    (day,) = read_status(config)["days"]
    assert (day["landed_again"], day["passed_over_files"]) == (["items"], [f"items/dt={RUN}/notes.txt"])


def test_a_folder_of_a_day_that_is_moved_in_place_of_another_is_noticed(config):
    before = config.landing_dir / "before"
    before.mkdir(parents=True)
    (before / "a.jsonl").write_text('{"older": 1}\n')
    folder = take_in(
        config, "impressions", RUN, seen_ns=max(path.stat().st_ctime_ns for path in (before, before / "a.jsonl"))
    )
    shutil.rmtree(folder)
    before.rename(folder)
    assert landed_again(config) == {str(RUN): ["impressions"]}


def test_the_status_says_which_run_takes_in_what_landed_again(config):
    for source, day in [("impressions", RUN), ("items", OLD), ("behavior_events", OLD), ("behavior_events", NEAR)]:
        take_in(config, source, day)
    said = CliRunner().invoke(app, ["status", "--home", str(config.home)]).stderr
    again = "landed again since it was taken in:"
    assert [line for line in said.splitlines() if again in line] == [
        f"{OLD}: {again} behavior_events; no day that was run looks back as far (sequences.history_days)",
        f"{OLD}: {again} items; `bahe run-day {RUN} --force` takes it in",
        f"{NEAR}: {again} behavior_events; `bahe run-day {RUN} --force` takes it in",
        f"{RUN}: {again} impressions; `bahe run-day {RUN}` takes it in",
    ]
