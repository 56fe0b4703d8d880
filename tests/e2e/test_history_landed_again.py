"""Rows that land again: history after a later day has taken it in, impressions with those of the next day."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from conftest import FIRST, at, event, impression
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.engines.inline import run_day
from bahe_tasks.stages.dedup_behaviors import dedup_behaviors
from bahe_tasks.stages.landed_again import landed_again
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.write_day import write_day

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
NEXT, BEFORE, LONG_BEFORE = (FIRST + timedelta(days=n) for n in (1, -1, -30))


@pytest.fixture(autouse=True)
def _one_session(spark):
    """Days run in the session the Spark tests share."""


def item(title, updated_at=BEFORE):
    return {"item_id": "i9", "title": title, "updated_at": at(updated_at, 0)}


def stored(home, name, day, column):
    rows = read_table(home.tables_dir, name, columns=[column], partitions=f"dt = '{day}'")
    return sorted(rows[column].to_pylist())


def test_history_is_taken_in_again_with_force_alone(home, log):
    log.ordinary_day(FIRST)
    log.land("items", BEFORE, [item("a wrong title")])
    log.land("behavior_events", BEFORE, [event(BEFORE, text="yesterday")])
    dedup_behaviors(FIRST, home)
    log.land("items", BEFORE, [item("the right title")])
    log.land("behavior_events", BEFORE, [event(BEFORE, text="more")], name="more.jsonl")
    dedup_behaviors(FIRST, home)
    assert stored(home, "items", BEFORE, "title") == ["a wrong title"]
    assert landed_again(home) == {str(BEFORE): ["behavior_events", "items"]}
    dedup_behaviors(FIRST, home, force=True)
    assert landed_again(home) == {}
    assert stored(home, "items", BEFORE, "title") == ["the right title"]
    assert stored(home, "behavior_events", BEFORE, "text") == ["more", "yesterday"]


def test_what_was_too_late_is_taken_in_once_the_setting_lets_it(home, log):
    log.ordinary_day(FIRST)
    log.land("items", BEFORE, [item("of a whole catalogue", updated_at=LONG_BEFORE)])
    dedup_behaviors(FIRST, home)
    assert stored(home, "items", BEFORE, "title") == []
    config = replace(home, landing=replace(home.landing, late_days=60))
    dedup_behaviors(FIRST, config, force=True)
    assert stored(home, "items", BEFORE, "title") == ["of a whole catalogue"]
    assert stored(home, "quarantine", BEFORE, "reason") == []


def test_a_day_that_had_a_run_of_its_own_is_not(home, log):
    log.ordinary_day(BEFORE)
    log.ordinary_day(FIRST)
    for day in (BEFORE, FIRST):
        dedup_behaviors(day, home)
    log.land("behavior_events", BEFORE, [event(BEFORE, text="more")], name="more.jsonl")
    dedup_behaviors(FIRST, home, force=True)
    assert "more" not in stored(home, "behavior_events", BEFORE, "text")


def test_the_status_names_what_landed_again(home, log):
    log.ordinary_day(FIRST)
    log.land("items", BEFORE, [item("a title")])
    dedup_behaviors(FIRST, home)
    for source, day in (("impressions", FIRST), ("items", BEFORE)):
        for landed in (home.landing_dir / source / f"dt={day}").iterdir():
            landed.touch()
    assert landed_again(home) == {}
    log.land("impressions", FIRST, [impression(FIRST, "more")], name="more.jsonl")
    log.land("items", BEFORE, [item("another title")])
    shown = CliRunner().invoke(app, ["status", "--home", str(home.home)])
    assert (
        f"{FIRST}: landed again since it was taken in: impressions; `bahe run-day {FIRST}` takes it in\n"
        in shown.stderr
    )
    assert (
        f"{BEFORE}: landed again since it was taken in: items; `bahe run-day {FIRST} --force` takes it in\n"
        in shown.stderr
    )
    shutil.rmtree(home.landing_dir / "items")
    assert landed_again(home) == {str(FIRST): ["impressions"]}


def test_what_lands_while_a_run_writes_counts_as_landed_again(home, log, monkeypatch):
    log.ordinary_day(FIRST)

    def as_more_lands(*arguments, **named):
        log.land("impressions", FIRST, [impression(FIRST, "more")], name="more.jsonl")
        return write_day(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("spark_jobs.dedup_behaviors.write_day", as_more_lands)
        dedup_behaviors(FIRST, home)
    assert landed_again(home) == {str(FIRST): ["impressions"]}
    dedup_behaviors(FIRST, home)
    assert landed_again(home) == {}


def test_a_day_that_lands_nothing_but_impressions_of_the_day_before_has_none(home, log):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    landed = home.landing_dir / "impressions" / f"dt={FIRST}" / "part-0.jsonl"
    log.land("impressions", NEXT, landed.read_text().splitlines()[:20])
    log.land("behavior_events", NEXT, [event(NEXT, user=f"u{n}") for n in range(60)])
    outcome = run_day(NEXT, home)
    assert (outcome.state, outcome.results["dedup_behaviors"]["duplicates"]) == ("no_impressions", 20)
    assert read_status(home)["days"][-1]["gate"] is None
