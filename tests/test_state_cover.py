"""Which partitions hold the state before a day."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bahe_tasks.state_cover import days_held, days_to_merge, state_cover

FIRST = date(2024, 1, 1)


def day(n: int) -> date:
    return FIRST + timedelta(days=n)


def partitions_written(days, excluded):
    """Run the days in order over a table of sets: partition → the days whose rows it holds."""
    table = {}
    for d in days:
        cover = state_cover(d, recorded=table, excluded={x for x in excluded if x < d})
        table[d] = {d}.union(*(table[p] for p in days_to_merge(d, cover)))
    return table


@given(st.sets(st.integers(0, 200), min_size=1), st.sets(st.integers(0, 200), max_size=5))
def test_the_cover_holds_every_day_that_ran_and_is_not_refused(ran, refused):
    days, excluded = [day(n) for n in sorted(ran)], {day(n) for n in refused}
    table = partitions_written(days, excluded)
    cover = state_cover(day(201), recorded=table, excluded=excluded)
    assert set().union(*(table[p] for p in cover)) == set(days) - excluded
    assert list(cover) == sorted(cover, reverse=True)


@given(st.integers(0, 4000))
def test_the_state_before_a_day_is_read_from_as_many_partitions_as_the_days_have_digits(n):
    recorded = [day(i) for i in range(n)]
    assert len(state_cover(day(n), recorded=recorded)) <= 15 + n // 2**15


@given(st.integers(1, 4000))
def test_each_day_writes_the_rows_of_few_others(n):
    held = days_held(day(n))
    assert held & (held - 1) == 0
    assert all(day(n) - timedelta(days=held) < d for d in days_to_merge(day(n), [day(i) for i in range(n)]))


def test_before_the_first_day_there_is_no_state():
    assert state_cover(FIRST, recorded=[FIRST, day(1)]) == ()
    assert state_cover(day(1), recorded=[FIRST], excluded=[FIRST]) == ()
