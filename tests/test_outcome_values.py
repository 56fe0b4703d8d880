"""Outcome values of arrays are those of the definition, which looks at every pair of an impression and an event."""

import numpy as np
from handmade_rows import DAY_US, Event, Impression
from hypothesis import given
from hypothesis import strategies as st
from slow_outcome_values import slow_outcome_value

from bahe_tasks.outcome_values import outcome_values

TIMES = st.sampled_from([-DAY_US, -1, 0, 1, 7, DAY_US - 1, DAY_US])
SHOWN = st.tuples(st.integers(0, 3), TIMES.filter(lambda time: time < DAY_US))
HAPPENED = st.tuples(st.integers(0, 3), TIMES, st.sampled_from([np.nan, -3.0, 0.5, 4.0]))


@given(shown=st.lists(SHOWN, max_size=8), happened=st.lists(HAPPENED, max_size=12))
def test_the_first_event_from_then_on_that_day_counts_and_of_equal_times_the_largest(shown, happened):
    found = outcome_values(
        np.array([pair for pair, _ in shown], np.int64),
        np.array([time for _, time in shown], np.int64),
        np.array([pair for pair, _, _ in happened], np.int64),
        np.array([time for _, time, _ in happened], np.int64),
        np.array([value for _, _, value in happened], np.float64),
    )
    events = [
        Event(0, "u", str(pair), "a text", "ratings", time, None if np.isnan(value) else value)
        for pair, time, value in happened
    ]
    expected = [
        slow_outcome_value(Impression(str(n), 0, "u", str(pair), None, time, 0, time), events)
        for n, (pair, time) in enumerate(shown)
    ]
    np.testing.assert_array_equal(found, np.array([np.nan if value is None else value for value in expected]))
