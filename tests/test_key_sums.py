"""Fading sums of keys against the definition, question by question."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bahe_tasks.key_sums import DAY_US, KeyState, Timed, cat_means, half_lives_us, key_sums, token_means
from bahe_tasks.running_sums import HALF_LIVES, STATISTICS, state_key, state_width

NUM_KEYS, NUM_FACTS, NUM_QUESTIONS = 7, 700, 300


def happenings(rng: np.random.Generator, scope: str, *, late_us: int = 0):
    """Few distinct times, so that facts, sightings and questions meet; one key has half of all, one has nothing."""

    def timed(count: int, keys: int) -> Timed:
        key = np.where(rng.random(count) < 0.5, 0, rng.integers(0, keys, count))
        return Timed(key, rng.integers(-5, 50, count) * 10**9)

    facts = timed(NUM_FACTS, NUM_KEYS - 1)
    facts.time_us[0] -= late_us
    absent = rng.random((2, NUM_KEYS)) < 0.5
    before = KeyState(
        rng.random((NUM_KEYS, state_width(scope))), *np.where(absent, np.nan, [[-9.0e9], [-6.0e9]]).astype(float)
    )
    statistics = rng.random((NUM_FACTS, len(STATISTICS[scope])))
    names = np.array([name[0] for name in STATISTICS[scope]])  # l, e, v: a fact is of some of these kinds
    for kind in "lev":
        statistics[:, names == kind] *= rng.random((NUM_FACTS, 1)) < 0.6
    return before, facts, statistics, timed(NUM_FACTS, NUM_KEYS - 1), timed(NUM_QUESTIONS, NUM_KEYS)


def of_newest(total: float, added: np.ndarray, times: np.ndarray, half_life: float) -> float:
    """Add facts up one by one, those of one time by their mean."""
    for time in np.unique(times):
        for _ in range((times == time).sum()):
            total = total * 0.5 ** (1 / half_life) + added[times == time].mean()
    return total


def by_definition(scope, before, facts, statistics, seen, key, time_us, *, read_at_us):
    half_lives = half_lives_us(scope)
    earlier = (facts.key == key) & (facts.time_us < time_us)
    added = np.repeat(statistics[earlier], len(HALF_LIVES[scope]), axis=1)
    sums = before.sums[key] * np.exp2(-read_at_us / half_lives)
    sums = sums + (added * np.exp2((facts.time_us[earlier, None] - read_at_us) / half_lives)).sum(0)
    for place, half_life in enumerate(HALF_LIVES[scope]):
        if np.isfinite(half_life.facts):
            for s, name in enumerate(STATISTICS[scope]):
                column = s * len(HALF_LIVES[scope]) + place
                counted = statistics[earlier, STATISTICS[scope].index(f"{name[:-1]}n")] > 0
                added, times = statistics[earlier, s][counted], facts.time_us[earlier][counted]
                sums[column] = of_newest(before.sums[key, column], added, times, half_life.facts)
    shown = seen.time_us[(seen.key == key) & (seen.time_us < time_us)].astype(float)
    return sums, np.fmin(before.first_us[key], np.fmin.reduce(shown, initial=np.nan)), np.fmax(
        before.last_us[key], np.fmax.reduce(shown, initial=np.nan)
    )  # fmt: skip


@pytest.mark.parametrize("scope", STATISTICS)
@pytest.mark.parametrize("late_us", [0, 2**61])
def test_answers_and_closings_are_those_of_the_definition(scope, late_us):
    before, facts, statistics, seen, asked = happenings(np.random.default_rng(1), scope, late_us=late_us)
    answers, closing = key_sums(scope, before, facts, statistics, seen, asked)
    for q, (key, time_us) in enumerate(zip(*asked, strict=True)):
        sums, first, last = by_definition(scope, before, facts, statistics, seen, key, time_us, read_at_us=time_us)
        np.testing.assert_allclose(answers.sums[q], sums, rtol=1e-12)
        np.testing.assert_array_equal([answers.first_us[q], answers.last_us[q]], [first, last])
    for key in range(NUM_KEYS):
        sums, first, last = by_definition(scope, before, facts, statistics, seen, key, 2**61, read_at_us=DAY_US)
        np.testing.assert_allclose(closing.sums[key], sums, rtol=1e-12)
        np.testing.assert_array_equal([closing.first_us[key], closing.last_us[key]], [first, last])


def test_bits_depend_neither_on_the_order_of_rows_nor_on_other_keys():
    rng = np.random.default_rng(2)
    before, facts, statistics, seen, asked = happenings(rng, "user")
    whole, _ = key_sums("user", before, facts, statistics, seen, asked)
    order = rng.permutation(NUM_FACTS)
    shuffled = Timed(facts.key[order], facts.time_us[order])
    again, _ = key_sums("user", before, shuffled, statistics[order], seen, asked)
    np.testing.assert_array_equal(again.sums, whole.sums)
    of_first = facts.key == 0
    alone, _ = key_sums(
        "user",
        KeyState(*(part[:1] for part in before)),
        Timed(facts.key[of_first], facts.time_us[of_first]),
        statistics[of_first],
        Timed(seen.key[seen.key == 0], seen.time_us[seen.key == 0]),
        Timed(asked.key[asked.key == 0], asked.time_us[asked.key == 0]),
    )
    np.testing.assert_array_equal(alone.sums, whole.sums[asked.key == 0])


def test_a_day_without_anything_leaves_faded_sums():
    nothing = Timed(np.zeros(0, np.int64), np.zeros(0, np.int64))
    before = KeyState(np.ones((2, state_width("token"))), np.full(2, np.nan), np.full(2, -5.0))
    answers, closing = key_sums("token", before, nothing, np.zeros((0, len(STATISTICS["token"]))), nothing, nothing)
    assert answers.sums.shape == (0, state_width("token"))
    np.testing.assert_array_equal(closing.sums, np.exp2(-DAY_US / half_lives_us("token")) * np.ones((2, 1)))
    np.testing.assert_array_equal(closing.last_us, [-5.0, -5.0])


def test_means_over_tokens_have_the_same_bits_in_any_order_of_them():
    rng = np.random.default_rng(3)
    sums, times = rng.random((5, state_width("token"))), rng.random((2, 5)) * 1e6
    row_of, base_rate = np.zeros(5, np.int64), np.array([0.3])
    means = token_means("token", row_of, sums, *times, base_rate=base_rate)
    for _ in range(50):
        order = rng.permutation(5)
        again = token_means("token", row_of, sums[order], *times[:, order], base_rate=base_rate)
        np.testing.assert_array_equal(again, means)


def test_an_impression_reads_the_mean_shift_of_its_categorical_values():
    sums = np.array([[4.0, 10.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -0.5, -0.5]])  # labels, then residuals
    found = cat_means(np.array([0, 0, 2]), sums, base_rate=np.array([0.5, 0.5, 0.1]))
    assert found[0] == pytest.approx([2.0 / (4 / 4 + 1.25) / 2, 5.0 / (10 / 4 + 1.25) / 2])  # hand-worked
    assert np.isnan(found[1]).all()
    assert found[2] == pytest.approx([-0.5 / (0.09 + 1.25)] * 2)


def test_thousands_of_facts_of_a_key_fade_without_overflow():
    rng, count = np.random.default_rng(4), 20_000
    facts = Timed(np.zeros(count, np.int64), np.arange(count))
    before = KeyState(np.zeros((1, state_width("item"))), *np.full((2, 1), np.nan))
    statistics = rng.random((count, len(STATISTICS["item"]))) + 0.1
    nothing = Timed(np.zeros(0, np.int64), np.zeros(0, np.int64))
    _, closing = key_sums("item", before, facts, statistics, nothing, nothing)
    half_lives = HALF_LIVES["item"]
    (place,) = (n for n, half_life in enumerate(half_lives) if np.isfinite(half_life.facts))
    weights = 0.5 ** (np.arange(count)[::-1] / half_lives[place].facts)
    np.testing.assert_allclose(closing.sums[0, place :: len(half_lives)], weights @ statistics, rtol=1e-12)


def test_ids_that_hold_a_nul_share_no_key_and_those_without_keep_theirs():
    ids = [("pair", *parts) for parts in (("a\0b", "c"), ("a", "b\0c"), ("a\0b\0c",), ("a", "b", "c"), ("a\0", "c"))]
    ids += [("pair", "a", "\0c"), ("pair", "a\xff", "c"), ("pair", "a\0", "", "c")]
    assert len({state_key(*of) for of in ids}) == len(ids)
    assert state_key("pair", "a", "b") == int(hashlib.sha256(b"pair\0a\0b").hexdigest()[:15], 16)
