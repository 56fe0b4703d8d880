"""A run of a day that was cut short goes on, as Airflow lets it, after another run of the day."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import FIRST, event, impression, kill_in

from bahe_tasks.engines.inline import run_day
from bahe_tasks.stages.dedup_behaviors import dedup_behaviors
from bahe_tasks.stages.errors import InputsChangedError
from bahe_tasks.stages.fine_tune import fine_tune
from bahe_tasks.stages.register_challenger import register_challenger
from bahe_tasks.stages.validate_challenger import validate_challenger
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import champion, connect, version_of, versions
from spark_jobs import write_day

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
NEXT = FIRST + timedelta(days=1)


@pytest.fixture(autouse=True)
def _one_session(spark):
    """Days run in the session the Spark tests share."""


def test_a_model_of_rows_that_were_replaced_since_is_not_judged(home, log, monkeypatch):
    log.ordinary_day(FIRST)
    log.ordinary_day(NEXT)
    run_day(FIRST, home)
    kill_in("validate_challenger", NEXT, home, monkeypatch)
    log.land("impressions", NEXT, [impression(NEXT, "more")], name="more.jsonl")
    assert run_day(NEXT, home).results["register_challenger"]["version"] == 3
    registry = connect(home)
    old = version_of(registry, 2)
    again = register_challenger(NEXT, home, run_id=old.run_id)["version"]
    for number in {2, again}:
        with pytest.raises(
            InputsChangedError, match=rf"version {number} of {NEXT} was trained from other rows .* run the day"
        ):
            validate_challenger(NEXT, home, version=number)
    assert champion(registry).version == 3
    assert [v.version for v in versions(registry) if v.eligible] == [1, 3]
    (home.landing_dir / "impressions" / f"dt={NEXT}" / "more.jsonl").unlink()
    assert run_day(NEXT, home).state == "done"  # as it landed at first
    assert champion(registry).fingerprint == old.fingerprint


def test_a_day_whose_inputs_were_refused_since_is_not_trained_on(home, log, monkeypatch):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    kill_in("fine_tune", FIRST, home, monkeypatch)
    log.land("impressions", FIRST, [{"label": 1}] * 200, name="broken.jsonl")
    assert run_day(FIRST, home).state == "refused"
    with pytest.raises(InputsChangedError, match=f"inputs of {FIRST} were refused"):
        fine_tune(FIRST, home)
    with pytest.raises(InputsChangedError, match=f"inputs of {FIRST} were refused"):
        validate_challenger(FIRST, home, version=1)
    assert run_day(FIRST, home, accept_reason="a known outage").state == "done"


def test_a_day_killed_before_its_last_table_is_written_whole_though_its_landing_is_as_it_was_before(
    home, log, monkeypatch
):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    log.land("behavior_events", FIRST, [event(FIRST, text="something more")], name="more.jsonl")
    write = write_day.overwrite_partitions

    def killed(rows, *, name, **named):
        if name == "impressions":
            raise KeyboardInterrupt
        return write(rows, name=name, **named)

    with monkeypatch.context() as patch:
        patch.setattr(write_day, "overwrite_partitions", killed)
        with pytest.raises(KeyboardInterrupt):
            dedup_behaviors(FIRST, home)
    (home.landing_dir / "behavior_events" / f"dt={FIRST}" / "more.jsonl").unlink()
    assert run_day(FIRST, home).state == "done"
    texts = read_table(home.tables_dir, "behavior_events", columns=["text"])["text"].to_pylist()
    assert texts
    assert "something more" not in texts
