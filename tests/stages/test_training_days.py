"""Whose rows a run trains on: each training day once, whatever became of the days between."""

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages import training_days as module
from bahe_tasks.stages.training_days import training_days


def june(*days: int) -> tuple[date, ...]:
    return tuple(date(2024, 6, day) for day in days)


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """Return a function: the training days of 28 June after a parent of `parent`, with versions day → gate between."""
    config = Config(home=tmp_path)

    def days(
        *, parent: int | None, gates: dict[int, str] | None = None, tags: dict | None = None, **training
    ) -> tuple[date, ...]:
        known = [
            SimpleNamespace(
                day=date(2024, 6, day), gate=gate, withdrawn=gate == "withdrawn", tags=(tags or {}).get(day, {})
            )
            for day, gate in (gates or {}).items()
        ]
        monkeypatch.setattr(module, "versions", lambda _registry: known)
        parent_version = SimpleNamespace(day=date(2024, 6, parent)) if parent else None
        changed = replace(config, training=replace(config.training, **training))
        return training_days(None, date(2024, 6, 28), parent_version, changed)

    return days


def test_after_the_day_before_it_is_the_day_alone(taken):
    assert taken(parent=27) == june(28)


def test_days_without_a_model_are_caught_up_with(taken):
    assert taken(parent=25) == june(26, 27, 28)
    assert taken(parent=25, gates={26: "pending", 27: "errored"}) == june(26, 27, 28)


def test_a_model_that_was_judged_had_its_turn(taken):
    assert taken(parent=24, gates={25: "refused", 26: "withdrawn"}) == june(27, 28)


def test_a_day_that_lost_the_rows_of_its_model_is_caught_up_with(taken):
    assert taken(parent=26, gates={27: "passed"}) == june(27, 28)


def test_days_that_a_refused_model_caught_up_with_had_their_turn_too(taken):
    tags = {27: {"training_days": "2024-06-25 2024-06-27"}}
    assert taken(parent=24, gates={27: "refused"}, tags=tags) == june(26, 28)
    assert taken(parent=24, gates={27: "pending"}, tags=tags) == june(25, 26, 27, 28)


def test_the_first_model_of_a_lineage_takes_its_window(taken):
    assert taken(parent=None) == june(28)
    assert taken(parent=None, window_days=3) == june(26, 27, 28)


def test_a_longer_window_is_taken_whole_and_gaps_before_it_too(taken):
    assert taken(parent=27, gates={26: "refused"}, window_days=3) == june(26, 27, 28)
    assert taken(parent=23, gates={25: "refused", 27: "refused"}, window_days=2) == june(24, 26, 27, 28)


def test_a_refit_from_scratch_is_its_window(taken):
    assert taken(parent=20, start_from="scratch", window_days=3) == june(26, 27, 28)


def test_what_is_out_of_reach_is_not_asked_for(taken):
    assert taken(parent=1) == june(*range(14, 29))
