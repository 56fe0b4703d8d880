"""The running sums that benchmarks compute in memory are those of the definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from handmade_rows import DAY_US
from handmade_sums_log import FIRST, random_log
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from slow_outcome_values import slow_outcome_value
from slow_running_sums import slow_sums

from bahe_tasks.config import LandingConfig
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks.kit.in_memory_log import outcomes_of
from benchmarks.kit.label_times import label_times_of
from benchmarks.kit.point_in_time_sums import point_in_time_sums


def frames(impressions, events):
    shown = pd.DataFrame(
        [(i.user, i.item, i.shown_us, i.label, float(i.known_us), i.dt * DAY_US) for i in impressions],
        columns=["user_id", "item_id", "shown_at", "label", "label_known_at", "landed_from"],
    )
    happened = pd.DataFrame(
        [(e.user, e.item, e.text, e.feature, e.occurred_us, e.value, e.dt * DAY_US) for e in events],
        columns=["user_id", "item_id", "text", "feature", "occurred_at", "value", "landed_from"],
    )
    happened["value"] = happened["value"].astype(float)
    cat = {name: np.array([i.cat.get(name) for i in impressions], object) for name in ("colour", "place")}
    return shown, pd.Series([i.title for i in impressions], dtype=object), happened, cat


def log_in_order(seed, *, num_days, rows_a_day, plain=True):
    """Return days, impressions by time (one or more) and events."""
    days = list(range(FIRST, FIRST + num_days))
    impressions, events = random_log(seed, days=days, rows_a_day=rows_a_day, plain=plain)
    assume(impressions)
    return days, sorted(impressions, key=lambda i: i.shown_us), events


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_sums_in_memory_are_those_of_the_definition(seed, plain, stop_at_day_start):
    """Also where rows land late and labels come later: `random_log` has both unless it is plain."""
    days, impressions, events = log_in_order(seed, num_days=4, rows_a_day=9, plain=plain)
    shown, *others = frames(impressions, events)
    times = label_times_of(shown, LandingConfig())
    found = point_in_time_sums(shown, *others, label_times=times, stop_at_day_start=stop_at_day_start)
    expected = slow_sums(days, impressions, events, stop_at_day_start=stop_at_day_start)
    rows = np.array([expected[i.name] or [None] * len(IMPRESSION_SUMS) for i in impressions], dtype=float)
    np.testing.assert_allclose(found, rows, rtol=1e-9, atol=1e-6)  # its times are float seconds


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_outcome_values_in_memory_are_those_of_the_definition(seed, plain):
    _, impressions, events = log_in_order(seed, num_days=3, rows_a_day=30, plain=plain)
    shown, _, happened, _ = frames(impressions, events)
    expected = [slow_outcome_value(i, events) for i in impressions]
    found = outcomes_of(shown, happened, label_times=label_times_of(shown, LandingConfig()))
    np.testing.assert_array_equal(found, np.array(expected, dtype=float))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_no_label_moves_its_own_or_earlier_sums(seed, data):
    _, impressions, events = log_in_order(seed, num_days=3, rows_a_day=9)
    n = data.draw(st.integers(0, len(impressions) - 1))
    shown, titles, happened, cat = frames(impressions, events)
    before = point_in_time_sums(shown, titles, happened, cat)
    shown.loc[n, "label"] = 1 - shown.loc[n, "label"]
    after = point_in_time_sums(shown, titles, happened, cat)
    earlier = (shown["shown_at"] <= shown.loc[n, "shown_at"]).to_numpy()
    np.testing.assert_allclose(before[earlier], after[earlier], rtol=0, atol=1e-12)  # cumulative sums round


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_published_is_what_an_impression_at_the_start_of_the_day_reads(seed):
    """And so it stays whatever the day brings, at whatever time of it is asked."""
    days, impressions, events = log_in_order(seed, num_days=4, rows_a_day=9)
    shown, titles, happened, cat = frames(impressions, events)
    start = days[-1] * DAY_US
    is_last = (shown["shown_at"] >= start).to_numpy()
    assume(is_last.any())
    published = point_in_time_sums(shown, titles, happened, cat, as_published=True)
    at_start = shown.assign(shown_at=shown["shown_at"].where(~is_last, start))
    before = happened[happened["occurred_at"] < start]
    expected = point_in_time_sums(at_start, titles, before, cat)
    np.testing.assert_allclose(published[is_last], expected[is_last], rtol=1e-9, atol=1e-6)
    other_way = shown.assign(label=shown["label"].where(~is_last, 1 - shown["label"]))
    again = point_in_time_sums(other_way, titles, before, cat, as_published=True)
    np.testing.assert_array_equal(published[is_last], again[is_last])


@pytest.mark.parametrize("flaw", ["no item_id", "no value", "equal titles", "one user", "no events", "no columns"])
def test_a_log_that_lacks_something_has_sums(flaw):
    _, impressions, events = log_in_order(5, num_days=2, rows_a_day=30)
    shown, titles, happened, cat = frames(impressions, events)
    if flaw == "no item_id":
        happened = happened.drop(columns="item_id")
    elif flaw == "no value":
        happened = happened.drop(columns="value")
    elif flaw == "equal titles":
        titles[:] = "the same"
    elif flaw == "one user":
        shown["user_id"] = happened["user_id"] = "u"
    elif flaw == "no events":
        happened = happened[:0]
    else:
        cat = {}
    found = point_in_time_sums(shown, titles, happened, cat)
    assert found.shape == (len(shown), len(IMPRESSION_SUMS))
    assert np.isfinite(found[:, IMPRESSION_SUMS.index("user_label_n_infd")]).all()
