"""Where a day's seconds go: what lies inside another span counts for the inner one alone."""

from __future__ import annotations

import itertools
import math
import sys
from contextlib import suppress

import pytest

from bahe_tasks.core import length_groups
from benchmarks import day_cost
from benchmarks.kit import stopwatch
from benchmarks.kit.stopwatch import Stopwatch


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by one second each time it is read."""
    clock = itertools.count()
    monkeypatch.setattr(stopwatch, "monotonic", lambda: float(next(clock)))


def test_a_span_inside_another_is_taken_off_it(ticking):
    watch = Stopwatch()
    with watch.span("outer"):
        for _ in range(2):
            with watch.span("inner"):
                pass
    assert watch.seconds == {("outer",): 3.0, ("outer", "inner"): 2.0}


def test_a_watched_function_is_timed_under_every_name_and_let_go_even_after_an_error(ticking, monkeypatch):
    def work():
        raise RuntimeError

    monkeypatch.setattr(length_groups, "first_name", work, raising=False)
    monkeypatch.setattr(length_groups, "second_name", work, raising=False)
    watch = Stopwatch()

    def use_both():
        with watch.watching({"work": [work]}, packages=("bahe_tasks",)):
            with suppress(RuntimeError):
                length_groups.first_name()
            length_groups.second_name()

    with pytest.raises(RuntimeError):
        use_both()
    assert watch.seconds == {("work",): 2.0}
    assert length_groups.first_name is work is length_groups.second_name


def test_a_function_that_no_module_holds_is_refused():
    with (
        pytest.raises(ValueError, match="lambda"),
        Stopwatch().watching({"x": [lambda: None]}, packages=("bahe_tasks",)),
    ):
        pass


def test_every_watched_function_is_held_by_the_stages():
    with Stopwatch().watching(day_cost.SPANS, packages=("bahe_tasks", "spark_jobs")):
        timed = sys.modules["bahe_tasks.stages.fine_tune"].train
        assert timed.__wrapped__ is day_cost.train


def test_means_are_over_the_later_half_of_the_days_after_the_first_and_leave_the_model_apart():
    watches = []
    for seconds in (100.0, 50.0, 1.0, 3.0):
        watch = Stopwatch()
        watch.seconds |= {
            ("fine_tune",): seconds,
            ("fine_tune", "model"): 10 * seconds,
            ("fine_tune", "registry", "commits"): 5.0,
        }
        watches.append(watch)
    document = day_cost.summarise(watches, pages_s_per_day=0.5)
    assert document.figures == {
        "seconds_per_day": 7.5,
        "pages_s_per_day": 0.5,
        "model_seconds_per_day": 20.0,
        "days": 2.0,
    }
    row = next(row for row in document.rows if row["task"] == "fine_tune")
    assert (row["rest"], row["model"], row["commits"]) == (2.0, 20.0, 5.0)
    assert math.isclose(row["first_day"], 1105.0)
    assert math.isclose(row["second_day"], 555.0)
