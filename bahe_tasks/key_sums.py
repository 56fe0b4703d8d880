"""Fading sums of keys (`bahe_tasks.running_sums`) over one day, with numpy: the one place where they are added up.

Facts add to the sums of their keys, questions ask what those were strictly before them. A fact of time t is scaled by
2^(t / half-life), so that sums fade by one factor when they are read. Times are microseconds since the start of the day.

Unusual: sums of a key are added in order of time, facts of one time in that of what they add, and apart from those of
other keys. So their bits depend neither on which keys are computed together nor on the order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bahe_tasks.running_sums import (
    HALF_LIVES,
    MIN_RATE,
    PRIOR_VALUES,
    STATISTICS,
    shift_of_residuals,
    state_key,
)

DAY_US = 86_400_000_000
_LONG_RUN = 256
_HALVINGS_A_BLOCK = 12.8
"""Of a sum that fades with facts, within which its values are divided by what they fade by: far from overflow."""
_KINDS = ("label", "event", "value")


class KeyState(NamedTuple):
    """Sums and sightings of K keys."""

    sums: np.ndarray  # (K, state_width) float64
    first_us: np.ndarray  # (K,) float64, when first shown, NaN = never
    last_us: np.ndarray  # (K,) float64, when last shown, NaN = never


class Timed(NamedTuple):
    """E things that happen to keys."""

    key: np.ndarray  # (E,) int64, the place of the key among the K
    time_us: np.ndarray  # (E,) int64


def keys_of_pairs(
    scope: str, users: Sequence[str], user: np.ndarray, others: Sequence[str], other: np.ndarray
) -> np.ndarray:
    """Return the key of each of E pairs of a user and another thing, (E,) int64; `user` and `other` (E,) are places among the ids."""
    distinct, pair = np.unique(user.astype(np.int64) * max(len(others), 1) + other, return_inverse=True)
    places = zip(*(of.tolist() for of in np.divmod(distinct, max(len(others), 1))), strict=True)
    return np.array([state_key(scope, users[u], others[o]) for u, o in places], np.int64)[pair.reshape(-1)]


def half_lives_us(scope: str) -> np.ndarray:
    """Return the half-life of each sum of a scope in time, (state_width,) float64 microseconds."""
    return np.tile([half_life.days * DAY_US for half_life in HALF_LIVES[scope]], len(STATISTICS[scope]))


def faded(sums: np.ndarray, scope: str, elapsed_us: np.ndarray) -> np.ndarray:
    """Return sums (K, state_width) as they are `elapsed_us` (K,) later."""
    return sums * np.exp2(-np.asarray(elapsed_us, float)[:, None] / half_lives_us(scope))


def statistics_of(scope: str, facts: Mapping[str, np.ndarray], base_rate: np.ndarray | float) -> np.ndarray:
    """Return what each of F facts adds to a key of a scope, (F, statistics) float64.

    `facts`, (F,) each: label (NaN: not a label), is_event, score (of an event's value, NaN: none), and what was expected of
    its user and item: user_rate, item_rate, user_value, item_value; only what the scope's
    statistics are made of need be there. `base_rate`, of all or (F,), is what a label is expected to be of nobody in particular.
    """

    def residual_of_label() -> np.ndarray:
        if scope == "user":
            return facts["label"] - facts["item_rate"]
        both = np.clip(facts["user_rate"] + facts["item_rate"] - base_rate, MIN_RATE, 1 - MIN_RATE)
        return np.asarray(facts["label"] - both)

    def residual_of_value() -> np.ndarray:
        of_item = facts["score"] - facts["item_value"]
        return of_item if scope == "user" else of_item - facts["user_value"]

    columns: dict[str, Callable[[], np.ndarray]] = {
        "label_n": lambda: ~np.isnan(facts["label"]),
        "label_s": lambda: facts["label"],
        "label_e": residual_of_label,
        "event_n": lambda: facts["is_event"],
        "value_n": lambda: ~np.isnan(facts["score"]),
        "value_s": lambda: facts["score"],
        "value_e": residual_of_value,
    }
    return np.stack([np.nan_to_num(np.asarray(columns[name](), float)) for name in STATISTICS[scope]], 1)


def key_sums(
    scope: str, before: KeyState, facts: Timed, statistics: np.ndarray, seen: Timed, asked: Timed
) -> tuple[KeyState, KeyState]:
    """Return what the keys of Q questions were strictly before them, (Q, …), and the K keys at the end of the day.

    `before` is the state at the start of the day; `statistics` (F, statistics) belong to `facts`; `seen` are the times
    at which keys were shown.
    """
    by_time = np.flatnonzero(np.tile([np.isinf(h.facts) for h in HALF_LIVES[scope]], len(STATISTICS[scope])))
    half_lives, every = half_lives_us(scope)[by_time], np.arange(len(before.sums) + 1)
    (fact_code, seen_code, asked_code), from_key = _codes(facts, seen, asked, num_keys=len(before.sums))
    order = _by_code(fact_code, statistics)
    statistics = statistics[order]
    added = statistics[:, by_time // len(HALF_LIVES[scope])]
    added *= np.exp2(facts.time_us[order, None] / half_lives)
    fact_code = fact_code[order]
    starts = np.searchsorted(fact_code, from_key)
    opening = before.sums[:, by_time]
    totals = np.concatenate([np.zeros((1, len(by_time))), _running(added, starts)])

    newest = [
        _Newest(scope, place, kind, before.sums, statistics, fact_code, starts)
        for place, half_life in enumerate(HALF_LIVES[scope])
        if np.isfinite(half_life.facts)
        for kind in _KINDS
        if f"{kind}_n" in STATISTICS[scope]
    ]

    def up_to(stop: np.ndarray, key: np.ndarray, time_us: np.ndarray) -> np.ndarray:
        of_times = (opening[key] + totals[np.where(stop > starts[key], stop, 0)]) * np.exp2(-time_us / half_lives)
        if not newest:
            return of_times
        sums = np.empty((len(key), before.sums.shape[1]))
        sums[:, by_time] = of_times
        for of_group in newest:
            sums[:, of_group.columns] = of_group.up_to(stop, key)
        return sums

    sums = up_to(np.searchsorted(fact_code, asked_code), asked.key, asked.time_us[:, None])
    closing = up_to(starts[1:], every[:-1], np.full((1, 1), DAY_US))
    order = np.argsort(seen_code, kind="stable")
    seen_code, shown_us = seen_code[order], np.append(seen.time_us[order], 0).astype(float)
    shown_from = np.searchsorted(seen_code, from_key)

    def sightings(stop: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        any_today = stop > shown_from[key]
        first = np.where(any_today, shown_us[shown_from[key]], np.nan)
        last = np.where(any_today, shown_us[stop - 1], np.nan)
        return np.fmin(before.first_us[key], first), np.fmax(before.last_us[key], last)

    return (
        KeyState(sums, *sightings(np.searchsorted(seen_code, asked_code), asked.key)),
        KeyState(closing, *sightings(shown_from[1:], every[:-1])),
    )


def token_means(
    scope: str, row_of: np.ndarray, sums: np.ndarray, gap_s: np.ndarray, age_s: np.ndarray, *, base_rate: np.ndarray
) -> np.ndarray:
    """Return the part of IMPRESSION_SUMS that belongs to `scope`, token or pair, (R, columns) float64.

    E tokens belong to the impressions `row_of` (E,) int64; `sums` is (E, state_width) as the impression reads them, `gap_s` and
    `age_s` (E,) are NaN for a token never met; `base_rate` is (R,).
    """
    half_lives = len(HALF_LIVES[scope])
    of = {name: sums[:, s * half_lives : (s + 1) * half_lives] for s, name in enumerate(STATISTICS[scope])}
    shift = shift_of_residuals(scope, of["label_e"], of["label_n"], base_rate[row_of, None])
    value = of["value_e"] / (of["value_n"] + PRIOR_VALUES[scope])
    logs = [np.log1p(of["label_n"][:, 0]), np.log1p(gap_s), np.log1p(age_s)]
    means = _means(np.concatenate([shift, value, np.stack(logs, 1)], 1), row_of, num_rows=len(base_rate))
    extremes = [
        _extremes(column[:, 0], row_of, take, num_rows=len(base_rate))
        for column in (shift, value)
        for take in (np.fmax, np.fmin)
    ]
    return np.concatenate([means[:, : 2 * half_lives], np.stack(extremes, 1), means[:, 2 * half_lives :]], 1)


def cat_means(row_of: np.ndarray, sums: np.ndarray, *, base_rate: np.ndarray) -> np.ndarray:
    """Return the part of IMPRESSION_SUMS that belongs to `cat`, (R, half-lives) float64.

    E categorical values belong to the impressions `row_of` (E,) int64; `sums` is (E, state_width) as the impression reads them;
    `base_rate` is (R,).
    """
    labels, residuals = np.split(sums, len(STATISTICS["cat"]), axis=1)
    shift = shift_of_residuals("cat", residuals, labels, base_rate[row_of, None])
    return _means(shift, row_of, num_rows=len(base_rate))


def _codes(*happenings: Timed, num_keys: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return numbers in the order of (key, time) for what happens, and the least such number of each of K + 1 keys."""
    times = [timed.time_us for timed in happenings]
    first = min((int(of.min()) for of in times if len(of)), default=0)
    bits = (max((int(of.max()) for of in times if len(of)), default=0) - first).bit_length()
    if bits + num_keys.bit_length() > 62:  # then places among the distinct times will do
        distinct = np.unique(np.concatenate(times))
        times, first, bits = [np.searchsorted(distinct, of) for of in times], 0, len(distinct).bit_length()
    codes = [(timed.key << bits) + (of - first) for timed, of in zip(happenings, times, strict=True)]
    return codes, np.arange(num_keys + 1) << bits


def _by_code(codes: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Return the order of facts (F,) by code, of equal ones by their statistics (F, S)."""
    order = np.argsort(codes, kind="stable")
    same = np.r_[False, codes[order[1:]] == codes[order[:-1]]][: len(order)]
    tied = np.flatnonzero(same | np.append(same[1:], False)[: len(order)])
    among = order[tied]
    order[tied] = among[np.lexsort((*statistics[among].T, codes[among]))]
    return order


class _Newest:
    """Sums of one kind of fact (labels, events, values) that fade with each further one of the key.

    Facts of one time are of no order: each counts as their mean does.
    """

    def __init__(
        self,
        scope: str,
        place: int,
        kind: str,
        before: np.ndarray,
        statistics: np.ndarray,
        codes: np.ndarray,
        starts: np.ndarray,
    ) -> None:
        """`place`: of the half-life; `statistics` (F, statistics) of facts in order of their `codes` (F,); `starts` (K + 1,)."""
        names = STATISTICS[scope]
        of_kind = [n for n, name in enumerate(names) if name.startswith(f"{kind}_")]
        counts = statistics[:, names.index(f"{kind}_n")] > 0
        self.columns = [n * len(HALF_LIVES[scope]) + place for n in of_kind]
        self._factor = 0.5 ** (1 / HALF_LIVES[scope][place].facts)
        self._before, self._starts = before[:, self.columns], starts
        self._counted = np.concatenate([[0], np.cumsum(counts)])
        values = _means_of_runs(statistics[counts][:, of_kind], runs_of=codes[counts])
        totals = _running(values, self._counted[starts], factor=self._factor)
        self._totals = np.concatenate([np.zeros((1, len(of_kind))), totals])

    def up_to(self, stop: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Return the sums of keys (Q,) over the facts before `stop` (Q,), (Q, columns)."""
        counted = self._counted[np.maximum(stop, self._starts[key])]
        further = counted - self._counted[self._starts[key]]
        faded = self._before[key] * self._factor ** further[:, None]
        return np.asarray(faded + self._totals[np.where(further > 0, counted, 0)])


def _means_of_runs(values: np.ndarray, *, runs_of: np.ndarray) -> np.ndarray:
    """Return for each of F rows the mean (F, C) of those that follow each other with the same number `runs_of` (F,)."""
    begins = np.flatnonzero(np.append(True, runs_of[1:] != runs_of[:-1])[: len(runs_of)])
    if len(begins) == len(values):
        return values
    lengths = np.diff(np.append(begins, len(values)))
    return np.repeat(np.add.reduceat(values, begins) / lengths[:, None], lengths, axis=0)


def _running(values: np.ndarray, starts: np.ndarray, *, factor: float = 1.0) -> np.ndarray:
    """Return the running sums of `values` (F, C) within each run [starts[k], starts[k + 1]), in place.

    Each step takes the sum before it `factor` times.
    """
    begins, lengths = starts[:-1], np.diff(starts)
    for begin, length in zip(begins[lengths > _LONG_RUN], lengths[lengths > _LONG_RUN], strict=True):
        _long_run(values[begin : begin + length], factor)
    short = lengths <= _LONG_RUN
    begins, lengths = begins[short], lengths[short]
    by_length = np.argsort(-lengths, kind="stable")
    begins, lengths = begins[by_length], lengths[by_length]
    for place in range(1, int(lengths.max(initial=0))):
        at = begins[: np.searchsorted(-lengths, -place)] + place  # runs that are longer than `place`
        values[at] += values[at - 1] * factor
    return values


def _long_run(values: np.ndarray, factor: float) -> None:
    """Make values (F, C) their running sums, block by block."""
    if factor == 1.0:
        np.cumsum(values, axis=0, out=values)
        return
    size = max(1, round(_HALVINGS_A_BLOCK / -np.log2(factor)))
    powers = factor ** np.arange(1.0, size + 1)[:, None]
    carried = np.zeros(values.shape[1])
    for begin in range(0, len(values), size):
        block = values[begin : begin + size]
        of_block = powers[: len(block)]
        block[:] = (np.cumsum(block / of_block, axis=0) + carried) * of_block
        carried = block[-1].copy()


def _means(columns: np.ndarray, row_of: np.ndarray, *, num_rows: int) -> np.ndarray:
    """Return the mean of each row's present numbers, (R, C); NaN where it has none."""
    total, count = np.zeros((2, num_rows, columns.shape[1]))
    order = np.lexsort((*columns.T, row_of))  # so that bits do not depend on the order of tokens
    columns, row_of = columns[order], row_of[order]
    np.add.at(total, row_of, np.nan_to_num(columns))
    np.add.at(count, row_of, ~np.isnan(columns))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _extremes(column: np.ndarray, row_of: np.ndarray, take: np.ufunc, *, num_rows: int) -> np.ndarray:
    """Return the largest (fmax) or smallest (fmin) number of each row, (R,); NaN where it has none."""
    found = np.full(num_rows, np.nan)
    take.at(found, row_of, column)
    return found
