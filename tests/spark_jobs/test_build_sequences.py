"""Sequences and their ends equal a slow reading of the rule, and no planted future behavior is ever used."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from random import Random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bahe_tasks.config import SequencesConfig
from spark_jobs.derived.build_sequences import build_sequences, events_read

LIMITS = SequencesConfig(max_behaviors_per_sequence=3, max_events_per_sequence=5)
Event = tuple[str, str, int, str, float | None, str | None]  # user, feature, second, behavior_key, value, item


def at_once(events, impressions, limits=LIMITS, *, rows_held=None):
    """Sequences and ends, of all events at once or of parts of two, few of them held."""
    names = ("user_id", "feature", "occurred_at", "behavior_key", "value", "item_id")
    columns = dict(zip(names, zip(*events, strict=True), strict=True))
    kinds = dict.fromkeys(names, pa.string()) | {"value": pa.float64(), "occurred_at": pa.timestamp("us", "UTC")}
    columns["occurred_at"] = [second * 1_000_000 for second in columns["occurred_at"]]
    frame = pa.table({name: pa.array(columns[name], kinds[name]) for name in names})
    numbers, users, seconds = zip(*impressions, strict=True)
    shown_at = pa.array([second * 1_000_000 for second in seconds], pa.timestamp("us", "UTC"))
    shown = pa.table({"user_id": pa.array(users, pa.string()), "shown_at": shown_at})
    if rows_held is not None:
        parts = [frame.slice(start, 2) for start in range(0, len(frame), 2)]
        frame = events_read(parts[::-1], shown, sequences=limits, rows_held=rows_held)
    sequences, ends = build_sequences(frame, shown, sequences=limits)
    built = {
        (r["user_id"], r["feature"]): (
            r["behavior_keys"], [int(t.timestamp()) for t in r["occurred_at"]], r["values"], r["capped"]
        )
        for r in sequences.to_pylist()
    }  # fmt: skip
    return built, dict(zip(numbers, map(dict, ends.to_pylist()), strict=True))


def in_parts(*given):
    return at_once(*given, rows_held=3)


WAYS = pytest.mark.parametrize("result_of", [at_once, in_parts])


def slow_result(events: list[Event], impressions):
    """The rule of DESIGN.md read word for word."""
    built, ends = {}, {number: {} for number, _, _ in impressions}
    histories = defaultdict(set)
    for event in events:
        histories[event[0], event[1]].add(event)
    for (user, feature), happened in histories.items():
        shown = [s for _, u, s in impressions if u == user]
        nothing_first = lambda e: (e[2], e[3], (e[4] is not None, e[4] or 0), (e[5] is not None, e[5] or ""))  # noqa: E731
        ordered = sorted(happened, key=nothing_first)
        before = [e for e in ordered if shown and e[2] < min(shown)][-LIMITS.max_behaviors_per_sequence :]
        during = [e for e in ordered if shown and min(shown) <= e[2] < max(shown)]
        wanted = before + during
        if len(wanted) > LIMITS.max_events_per_sequence:
            wanted = newest_of_each(ordered, shown, LIMITS.max_behaviors_per_sequence)
        kept = wanted
        if len(wanted) > LIMITS.max_events_per_sequence:
            sizes = range(LIMITS.max_behaviors_per_sequence)
            most = max(n for n in sizes if len(newest_of_each(ordered, shown, n)) <= LIMITS.max_events_per_sequence)
            kept = newest_of_each(ordered, shown, most)
            for e in reversed(newest_of_each(ordered, shown, most + 1)):
                if e not in kept and len(kept) < LIMITS.max_events_per_sequence:
                    kept.append(e)
            kept.sort(key=ordered.index)
        if kept:
            built[user, feature] = (
                [e[3] for e in kept],
                [e[2] for e in kept],
                [e[4] for e in kept],
                len(wanted) - len(kept),
            )
            for number, u, s in impressions:
                end = sum(e[2] < s for e in kept)
                if u == user and end:
                    ends[number][feature] = end
    return built, ends


def newest_of_each(ordered, shown, count):
    """Return the events that are among the newest so many before one of the times."""
    read = [e for s in shown for e in [e for e in ordered if e[2] < s][-count:]] if count else []
    return [e for e in ordered if e in read]


@WAYS
def test_a_sequence_that_is_too_long_costs_every_impression_its_oldest(result_of):
    events = [("u", "f", n, f"k{n}", None, None) for n in range(1, 100)]
    built, ends = result_of(events, [(1, "u", 20), (2, "u", 50), (3, "u", 80)])
    assert built == {("u", "f"): (["k19", "k48", "k49", "k78", "k79"], [19, 48, 49, 78, 79], [None] * 5, 4)}
    assert ends == {1: {"f": 1}, 2: {"f": 3}, 3: {"f": 5}}


@WAYS
@settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_random_histories_equal_the_slow_reading_and_hold_nothing_of_the_future(result_of, seed):
    random = Random(seed)
    users = [f"u{n}" for n in range(40)]
    impressions = [(n, random.choice(users[:30]), random.randrange(100, 120)) for n in range(80)]
    events = [
        (
            random.choice(users),
            random.choice("fg"),
            random.randrange(80, 125),
            random.choice("kmn"),
            random.choice([None, 1.0, 2.0]),
            random.choice([None, "i"]),
        )
        for _ in range(500)
    ]
    planted = [
        (user, "f", shown + random.choice([0, 0, 1, 10_000]), "future", 1.0, None) for _, user, shown in impressions
    ]
    built, ends = result_of(events + planted, impressions)
    assert (built, ends) == slow_result(events + planted, impressions)
    # Stated again without the reference: what a model may read of any impression happened strictly before it.
    planted_at = {(user, s) for user, _, s, *_ in planted}
    for number, user, shown in impressions:
        for feature, end in ends[number].items():
            keys, seconds, *_ = built[user, feature]
            assert max(seconds[:end]) < shown
            assert all(
                key != "future" or (user, s) in planted_at for key, s in zip(keys[:end], seconds[:end], strict=True)
            )


@WAYS
def test_an_event_at_the_instant_of_the_impression_is_not_history(result_of):
    events = [
        ("u", "f", 9, "before", None, None),
        ("u", "f", 10, "same instant", None, None),
        ("u", "f", 11, "after", None, None),
    ]
    built, ends = result_of(events, [(1, "u", 10), (2, "u", 11), (3, "nobody", 11)])
    assert built == {("u", "f"): (["before", "same instant"], [9, 10], [None, None], 0)}
    assert ends == {1: {"f": 1}, 2: {"f": 2}, 3: {}}


@WAYS
def test_histories_as_of_the_day_s_start_hold_the_newest_before_it_for_every_impression_of_the_day(result_of):
    noon, day = 43_200, 86_400
    limits = replace(LIMITS, history_as_of="day_start")
    events = [("u", "f", day + n, f"k{n}", None, None) for n in (-4, -3, -2, -1, 0, noon)]
    built, ends = result_of(events, [(1, "u", day + 5), (2, "u", day + noon + 5)], limits)
    assert built == {("u", "f"): (["k-3", "k-2", "k-1"], [day - 3, day - 2, day - 1], [None] * 3, 0)}
    assert ends == {1: {"f": 3}, 2: {"f": 3}}


@WAYS
@pytest.mark.parametrize("afterwards", [0, 2, 100])
def test_what_a_user_does_after_an_impression_does_not_cost_it_its_history(result_of, afterwards):
    events = [("u", "f", n, f"k{n}", None, None) for n in (1, 2, 3)]
    events += [("u", "f", 100 + n, f"l{n}", None, None) for n in range(afterwards)]
    built, ends = result_of(events, [(1, "u", 50), (2, "u", 1000)], replace(LIMITS, max_events_per_sequence=6))
    keys, *_, capped = built["u", "f"]
    assert (keys[: ends[1]["f"]], capped) == (["k1", "k2", "k3"], 0)
