"""The sums of every impression from their definition (`bahe_tasks.running_sums`), with loops over raw rows.

Nothing is carried from day to day but the list of facts counted so far, each with what was expected of it on the day it
was counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from handmade_rows import DAY_US, Event, Impression

from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    BASE_PRIOR,
    HALF_LIVES,
    IMPRESSION_SUMS,
    MAX_VALUE_SCORE,
    MIN_RATE,
    MIN_VALUE_VARIANCE,
    PRIOR_LOG_ODDS_VARIANCE,
    PRIOR_VALUES,
    STATISTICS,
    HalfLife,
    prior_facts,
    title_tokens,
)

SECOND_US = 1_000_000


@dataclass(frozen=True)
class Fact:
    """What is added to the sums of some keys at a time; `day` is the one that counts it."""

    day: int
    time_us: int
    of: dict[tuple[str, ...], dict[str, float]]
    label: int | None = None
    moment: tuple[str, float] | None = None


def slow_sums(
    run_days: list[int],
    impressions: list[Impression],
    events: list[Event],
    *,
    excluded: frozenset[int] = frozenset(),
    horizon_days: int = 7,
    stop_at_day_start: bool = False,
) -> dict[str, list[float | None] | None]:
    """Return the sums of the impressions of the days run, by name; None for a late one.

    Days run in order; a refused one (`excluded`) is run, and what landed on it is read by no later run.
    """
    facts: list[Fact] = []
    sightings: list[Impression] = []
    found: dict[str, list[float | None] | None] = {}
    before = None
    for day in run_days:
        seen = [i for i in impressions if i.dt == day or (i.dt in run_days and i.dt < day and i.dt not in excluded)]
        happened = [e for e in events if e.dt == day or (e.dt < day and e.dt not in excluded)]
        new_labels = [
            i for i in seen
            if i.label_day <= day and i.label_day - i.dt <= horizon_days and (before is None or i.label_day > before)
        ]  # fmt: skip
        new_events = [e for e in happened if before is None or e.dt > before]
        new_sightings = [i for i in seen if not i.is_late and (before is None or i.dt > before)]
        today = _count(facts, new_labels, new_events, day, stop_at_day_start)
        asked = [i for i in impressions if i.dt == day]
        for i in asked:
            found[i.name] = (
                None
                if i.is_late
                else _answer(i, facts, facts + today, sightings + new_sightings, day, stop_at_day_start)
            )
        if day not in excluded:
            facts, sightings, before = facts + today, sightings + new_sightings, day
    return found


def _count(
    facts: list[Fact], labels: list[Impression], events: list[Event], day: int, stop_at_day_start: bool
) -> list[Fact]:
    """Return the facts that a day adds; what is expected of them is as of the state before it."""
    at_start = _base(facts, day)
    knows_any = any(f.label is not None for f in facts)

    def total(key: tuple[str, ...], statistic: str) -> float:
        return sum(f.of[key].get(statistic, 0.0) for f in facts if key in f.of)

    def base_of(i: Impression) -> float:
        if knows_any:
            return at_start
        clicks, count = BASE_PRIOR
        upto = [other.label for other in labels if label_counts_from(other) <= label_counts_from(i)]
        return min(max((clicks + sum(upto)) / (count + len(upto)), MIN_RATE), 1 - MIN_RATE)

    def rate(scope: str, name: str, base: float) -> float:
        prior = prior_facts(scope, base)
        return (total((scope, name), "label_s") + prior * base) / (total((scope, name), "label_n") + prior)

    def mean_value(scope: str, name: str | None) -> float:
        if name is None:
            return 0.0
        return total((scope, name), "value_s") / (total((scope, name), "value_n") + PRIOR_VALUES[scope])

    def counts_from(time_us: int) -> int:
        return (day + 1) * DAY_US - 1 if stop_at_day_start else time_us

    def label_counts_from(i: Impression) -> int:
        return counts_from(max(i.known_us, i.shown_us))

    moments = defaultdict(list)
    for fact in facts:
        if fact.moment:
            moments[fact.moment[0]].append(fact.moment[1])
    for event in events:
        if event.value is not None and counts_from(event.occurred_us) < day * DAY_US:
            moments[event.feature].append(event.value)
    added = []
    for i in labels:
        base = base_of(i)
        of_user, of_item = rate("user", i.user, base), rate("item", i.item, base)
        both = min(max(of_user + of_item - base, MIN_RATE), 1 - MIN_RATE)
        expected = {"user": of_item} | dict.fromkeys(("user_item", "token", "pair", "cat"), both)
        of = {
            key: {"label_n": 1.0, "label_s": float(i.label), "label_e": i.label - expected.get(key[0], 0.0)}
            for key in i.touched()
        }
        added.append(Fact(day, label_counts_from(i), of, label=i.label))
    for e in events:
        score = _score(e.value, moments[e.feature])
        of_user, of_item = mean_value("user", e.user), mean_value("item", e.item)
        expected = {"user": of_item} | dict.fromkeys(("user_item", "token", "pair"), of_user + of_item)
        of = {}
        for key in e.touched():
            of[key] = {"event_n": 1.0}
            if score is not None:
                of[key] |= {"value_n": 1.0, "value_s": score, "value_e": score - expected.get(key[0], 0.0)}
        moment = None if e.value is None else (e.feature, e.value)
        added.append(Fact(day, counts_from(e.occurred_us), of, moment=moment))
    return added


def _base(facts: list[Fact], day: int) -> float:
    """Return the base rate at the start of a day: labels fade by whole days."""
    clicks, count = BASE_PRIOR
    for fact in facts:
        if fact.label is not None:
            weight = 0.5 ** ((day - fact.time_us // DAY_US) / BASE_HALF_LIFE_DAYS)
            clicks, count = clicks + weight * fact.label, count + weight
    return min(max(clicks / count, MIN_RATE), 1 - MIN_RATE)


def _score(value: float | None, of_feature: list[float]) -> float | None:
    if value is None or not of_feature:
        return None
    mean = sum(of_feature) / len(of_feature)
    squares = sum(v * v for v in of_feature) / len(of_feature)
    variance = squares - mean**2
    if variance <= MIN_VALUE_VARIANCE * squares:
        return None
    return min(max((value - mean) / math.sqrt(variance), -MAX_VALUE_SCORE), MAX_VALUE_SCORE)


def _answer(
    i: Impression,
    before_day: list[Fact],
    facts: list[Fact],
    sightings: list[Impression],
    day: int,
    stop_at_day_start: bool,
) -> list[float | None]:
    asked_us = day * DAY_US if stop_at_day_start else i.shown_us
    base = _base(before_day, day)
    knows_any = any(f.label is not None for f in before_day)
    found: dict[str, float | None] = {"base_rate": base if knows_any else None}
    past = [f for f in facts if f.time_us < asked_us]
    if not knows_any:
        so_far = [f.label for f in past if f.label is not None]
        base = min(max((BASE_PRIOR[0] + sum(so_far)) / (BASE_PRIOR[1] + len(so_far)), MIN_RATE), 1 - MIN_RATE)
    of_second = [f for f in facts if f.time_us < asked_us // SECOND_US * SECOND_US]
    shown = [s for s in sightings if s.shown_us < asked_us]

    def faded(key: tuple[str, ...], statistic: str, half_life: HalfLife) -> float:
        if math.isfinite(half_life.facts):
            return of_newest(key, statistic, half_life.facts)
        return sum(
            f.of[key].get(statistic, 0.0) * 2 ** (-(asked_us - f.time_us) / (half_life.days * DAY_US))
            for f in past
            if key in f.of
        )

    def of_newest(key: tuple[str, ...], statistic: str, half_life: float) -> float:
        counter = f"{statistic.partition('_')[0]}_n"
        of_kind = [
            f for f in (of_second if key == ("log",) else past) if key in f.of and f.of[key].get(counter, 0.0) > 0
        ]
        total = 0.0
        for at in sorted({(f.day, f.time_us) for f in of_kind}):
            added = [f.of[key].get(statistic, 0.0) for f in of_kind if (f.day, f.time_us) == at]
            for _ in added:
                total = total * 0.5 ** (1 / half_life) + sum(added) / len(added)
        return total

    def shift(key: tuple[str, ...], half_life: HalfLife) -> float:
        return faded(key, "label_e", half_life) / (
            faded(key, "label_n", half_life) * base * (1 - base) + 1 / PRIOR_LOG_ODDS_VARIANCE[key[0]]
        )

    def times(key: tuple[str, ...]) -> tuple[float | None, float | None]:
        at = [s.shown_us for s in shown if key in s.touched()]
        return ((asked_us - max(at)) / 1e6, (asked_us - min(at)) / 1e6) if at else (None, None)

    for statistic in STATISTICS["log"]:
        for half_life in HALF_LIVES["log"]:
            found[f"log_{statistic}_{half_life.name}"] = faded(("log",), statistic, half_life)
    for key in (("user", i.user), ("item", i.item), ("user_item", i.user, i.item)):
        for statistic in STATISTICS[key[0]]:
            for half_life in HALF_LIVES[key[0]]:
                found[f"{key[0]}_{statistic}_{half_life.name}"] = faded(key, statistic, half_life)
        found[f"{key[0]}_gap_s"], found[f"{key[0]}_age_s"] = times(key)
    tokens = [] if i.title is None else title_tokens(i.title)
    for half_life in HALF_LIVES["cat"]:
        found[f"cat_label_{half_life.name}"] = _mean([shift(k, half_life) for k in i.cats()])
    for scope in ("token", "pair"):
        keys = [(scope, t) if scope == "token" else (scope, i.user, t) for t in tokens]
        for half_life in HALF_LIVES[scope]:
            labels = [shift(k, half_life) for k in keys]
            values = [
                faded(k, "value_e", half_life) / (faded(k, "value_n", half_life) + PRIOR_VALUES[scope]) for k in keys
            ]
            for kind, of_tokens in (("label", labels), ("value", values)):
                found[f"{scope}_{kind}_{half_life.name}"] = _mean(of_tokens)
                if half_life == HALF_LIVES[scope][0]:
                    found[f"{scope}_{kind}_max"] = max(of_tokens, default=None)
                    found[f"{scope}_{kind}_min"] = min(of_tokens, default=None)
        found[f"{scope}_log_n"] = _mean([math.log1p(faded(k, "label_n", HALF_LIVES[scope][0])) for k in keys])
        for kind, of_key in (("gap", 0), ("age", 1)):
            met = [times(k)[of_key] for k in keys]
            found[f"{scope}_log_{kind}"] = _mean([math.log1p(t) for t in met if t is not None])
    return [found[name] for name in IMPRESSION_SUMS]


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
