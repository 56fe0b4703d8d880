"""The running sums of a log in memory, day by day: what the pipeline computes, with dense numbers for keys.

For benchmarks that replay months of a log in seconds. The sums of a day are those of `bahe_tasks.key_sums`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.key_sums import DAY_US, KeyState, Timed, cat_means, key_sums, statistics_of, token_means
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    HALF_LIVES,
    LOG_STEP_US,
    MAX_VALUE_SCORE,
    MIN_VALUE_VARIANCE,
    PRIOR_VALUES,
    STATISTICS,
    prior_facts,
    state_width,
)

_RUNNING = tuple(STATISTICS)


@dataclass(frozen=True)
class KeyedRows:
    """R rows with their keys as dense numbers. Tokens of row r lie at [token_starts[r], token_starts[r + 1]), categorical
    values likewise."""

    time_us: np.ndarray  # (R,) int64, microseconds since 1970 UTC
    user: np.ndarray  # (R,) int64
    item: np.ndarray  # (R,) int64, -1 = none
    user_item: np.ndarray  # (R,) int64, of anything where a row has no item
    token_starts: np.ndarray  # (R + 1,) int64
    token: np.ndarray  # (E,) int64
    pair: np.ndarray  # (E,) int64
    cat_starts: np.ndarray  # (R + 1,) int64
    cat: np.ndarray  # (C,) int64

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: np.ndarray) -> KeyedRows:
        """Return the rows at the places (Q,) int64."""
        token, cat = (_places(starts, rows) for starts in (self.token_starts, self.cat_starts))
        return KeyedRows(
            self.time_us[rows],
            self.user[rows],
            self.item[rows],
            self.user_item[rows],
            token.starts,
            self.token[token.places],
            self.pair[token.places],
            cat.starts,
            self.cat[cat.places],
        )

    def part(self, rows: slice) -> KeyedRows:
        """Return consecutive rows."""
        starts = self.token_starts[rows.start : rows.stop + 1]
        tokens = slice(starts[0], starts[-1])
        cat_starts = self.cat_starts[rows.start : rows.stop + 1]
        return KeyedRows(
            self.time_us[rows],
            self.user[rows],
            self.item[rows],
            self.user_item[rows],
            starts - starts[0],
            self.token[tokens],
            self.pair[tokens],
            cat_starts - cat_starts[0],
            self.cat[cat_starts[0] : cat_starts[-1]],
        )

    def of_scope(self, scope: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, key) of every key of a scope that a row has."""
        rows = np.arange(len(self))
        if scope == "log":
            return rows, np.zeros(len(self), np.int64)
        if scope == "user":
            return rows, self.user
        if scope in ("item", "user_item"):
            key = self.item if scope == "item" else self.user_item
            return rows[self.item >= 0], key[self.item >= 0]
        if scope == "cat":
            return np.repeat(rows, np.diff(self.cat_starts)), self.cat
        return np.repeat(rows, np.diff(self.token_starts)), self.token if scope == "token" else self.pair


def _at(rows: KeyedRows, time_us: int) -> KeyedRows:
    return replace(rows, time_us=np.full(len(rows), time_us))


class _Places(NamedTuple):
    starts: np.ndarray
    places: np.ndarray


def _places(starts: np.ndarray, rows: np.ndarray) -> _Places:
    """Return where what the rows own, at [starts[r], starts[r + 1]), lies, and from where on in that."""
    counts = np.diff(starts)[rows]
    new_starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return _Places(new_starts, np.repeat(starts[rows] - new_starts[:-1], counts) + np.arange(new_starts[-1]))


@dataclass
class RunningSums:
    """The state at the start of a day, times as µs since that. `keys`: number of distinct keys of each scope."""

    keys: dict[str, int]
    num_features: int
    as_of_day_start: bool = False
    """Whether questions are answered as at the start of their day, and what a day counts counts from its end."""
    as_published: bool = False
    """Whether questions are answered from the state of the evening before alone, in which what a day counted counts from its own time."""
    state: dict[str, KeyState] = field(init=False)

    def __post_init__(self) -> None:
        self.state = {
            scope: KeyState(np.zeros((count, state_width(scope))), *np.full((2, count), np.nan))
            for scope, count in {"log": 1, **self.keys}.items()
        }
        self._of_all = np.zeros(2)
        self._of_features = np.zeros((self.num_features, 3))

    def take_day(
        self,
        start_us: int,
        questions: KeyedRows,
        *,
        labelled: KeyedRows,
        labels: np.ndarray,
        events: KeyedRows,
        values: np.ndarray,
        features: np.ndarray,
    ) -> np.ndarray:
        """Answer a day's questions, (Q, len(IMPRESSION_SUMS)) float64, and go on to the start of the next day.

        `labels` (L,) become known at the time of `labelled`; `values` (E,), NaN = none, and `features` (E,) int64 are of
        `events`. All are sorted by time; questions are of the day that starts at `start_us`, the others may have come late.
        """
        if self.as_of_day_start:
            labelled, events = (_at(rows, start_us + DAY_US - 1) for rows in (labelled, events))
        has_value = ~np.isnan(values)
        moments = np.stack([np.ones(has_value.sum()), values[has_value], values[has_value] ** 2], 1)
        of_features, is_early = features[has_value], events.time_us[has_value] < start_us
        np.add.at(self._of_features, of_features[is_early], moments[is_early])
        base = self._base_rate(labelled.time_us, labels)
        absent = np.full(len(labelled), np.nan), np.full(len(events), np.nan)
        facts = [
            (labelled, {"label": labels, "score": absent[0], "is_event": np.zeros(len(labelled))}),
            (events, {"label": absent[1], "score": self._scores(values, features), "is_event": np.ones(len(events))}),
        ]
        known = [(rows, of | self._expected(rows, base)) for rows, of in facts]
        if self.as_published:
            eve, later = dict(self.state), [(_at(rows, start_us + DAY_US - 1), of) for rows, of in known]
            answers = [self._answer(scope, start_us, questions, later, base) for scope in _RUNNING]
            self.state = eve
        of_times = [self._answer(scope, start_us, questions, known, base) for scope in _RUNNING]
        answers = answers if self.as_published else of_times
        weights = 0.5 ** ((start_us // DAY_US - labelled.time_us // DAY_US) / BASE_HALF_LIFE_DAYS)
        added = np.array([weights.sum(), (weights * labels).sum()])
        self._of_all = (self._of_all + added) * 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
        np.add.at(self._of_features, of_features[~is_early], moments[~is_early])
        return np.concatenate([np.full((len(questions), 1), base.known), *answers], 1)

    def _scores(self, values: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return values in deviations of their feature, NaN where that is not known."""
        count, total, squares = self._of_features.T
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            variance = squares / count - mean**2
            deviation = np.sqrt(np.where(variance > MIN_VALUE_VARIANCE * squares / count, variance, np.nan))
            return np.clip((values - mean[features]) / deviation[features], -MAX_VALUE_SCORE, MAX_VALUE_SCORE)

    def _expected(self, rows: KeyedRows, base: BaseRate) -> dict[str, np.ndarray]:
        """Return what is expected of the label of each row, and the mean of values of its user and item."""
        base_rate = base.of_facts(rows.time_us)
        found = {"base_rate": base_rate}
        for scope, key in (("user", rows.user), ("item", rows.item)):
            step, prior = len(HALF_LIVES[scope]), prior_facts(scope, base_rate)
            of = {
                name: np.where(key < 0, 0.0, self.state[scope].sums[key, STATISTICS[scope].index(name) * step])
                for name in ("label_n", "label_s", "value_n", "value_s")
            }
            found[f"{scope}_rate"] = (of["label_s"] + prior * base_rate) / (of["label_n"] + prior)
            found[f"{scope}_value"] = of["value_s"] / (of["value_n"] + PRIOR_VALUES[scope])
        return found

    def _base_rate(self, of_day_us: np.ndarray, of_day: np.ndarray) -> BaseRate:
        facts, clicks = self._of_all.tolist()
        return BaseRate.before(clicks, facts, of_day_us, of_day)

    def _answer(
        self,
        scope: str,
        start_us: int,
        questions: KeyedRows,
        facts: list[tuple[KeyedRows, dict[str, np.ndarray]]],
        base: BaseRate,
    ) -> np.ndarray:
        keys, times, added = [], [], []
        for rows, of_rows in facts:
            row, key = rows.of_scope(scope)
            keys.append(key)
            times.append(rows.time_us[row] - start_us)
            added.append(statistics_of(scope, of_rows, of_rows["base_rate"])[row])
        row, key = questions.of_scope(scope)
        seen = Timed(key, questions.time_us[row] - start_us)
        at_start = self.as_of_day_start or self.as_published
        asked_us = np.zeros(len(questions), np.int64) if at_start else questions.time_us - start_us
        asked = Timed(key, asked_us[row] // LOG_STEP_US * LOG_STEP_US if scope == "log" else asked_us[row])
        happened = Timed(np.concatenate(keys), np.concatenate(times))
        found, (sums, first, last) = key_sums(scope, self.state[scope], happened, np.concatenate(added), seen, asked)
        self.state[scope] = KeyState(sums, first - DAY_US, last - DAY_US)
        if scope == "log":
            return found.sums
        gap_s, age_s = (asked.time_us - found.last_us) / 1e6, (asked.time_us - found.first_us) / 1e6
        if scope in ("user", "item", "user_item"):
            answer = np.zeros((len(questions), found.sums.shape[1] + 2))
            answer[:, -2:] = np.nan
            answer[row] = np.concatenate([found.sums, gap_s[:, None], age_s[:, None]], 1)
            return answer
        base_rate = base.of_questions(start_us + asked_us)
        if scope == "cat":
            return cat_means(row, found.sums, base_rate=base_rate)
        return token_means(scope, row, found.sums, gap_s, age_s, base_rate=base_rate)
