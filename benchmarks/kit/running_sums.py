"""The running sums of a log in memory, day by day: what the Spark job of the pipeline computes, with numpy.

For benchmarks that replay months of a log in seconds. A day is one pass: facts and questions of all keys of a scope are
sorted by (key, time), and a fading sum at a question is a cumulative sum of facts scaled by 2^(time / half-life).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bahe_tasks.key_sums import token_means
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    BASE_PRIOR,
    HALF_LIVES_DAYS,
    MAX_VALUE_SCORE,
    MIN_RATE,
    MIN_VALUE_VARIANCE,
    PRIOR_VALUES,
    STATISTICS,
    prior_facts,
    state_width,
)

DAY_S = 86_400.0
_RUNNING = ("user", "item", "token", "pair")


@dataclass(frozen=True)
class KeyedRows:
    """R rows with their keys as dense numbers. Tokens of row r lie at [token_starts[r], token_starts[r + 1])."""

    time_s: np.ndarray  # (R,) float64, seconds since 1970 UTC
    user: np.ndarray  # (R,) int64
    item: np.ndarray  # (R,) int64, -1 = none
    token_starts: np.ndarray  # (R + 1,) int64
    token: np.ndarray  # (E,) int64
    pair: np.ndarray  # (E,) int64

    def __len__(self) -> int:
        return len(self.time_s)

    def part(self, rows: slice) -> KeyedRows:
        """Return consecutive rows."""
        starts = self.token_starts[rows.start : rows.stop + 1]
        tokens = slice(starts[0], starts[-1])
        return KeyedRows(
            self.time_s[rows],
            self.user[rows],
            self.item[rows],
            starts - starts[0],
            self.token[tokens],
            self.pair[tokens],
        )

    def of_scope(self, scope: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, key) of every key of a scope that a row has."""
        rows = np.arange(len(self))
        if scope == "user":
            return rows, self.user
        if scope == "item":
            return rows[self.item >= 0], self.item[self.item >= 0]
        return np.repeat(rows, np.diff(self.token_starts)), self.token if scope == "token" else self.pair


@dataclass
class RunningSums:
    """The state at the start of a day. `keys`: number of distinct keys of each scope."""

    keys: dict[str, int]
    num_features: int
    sums: dict[str, np.ndarray] = field(init=False)  # (keys, state_width) float64 each
    first_s: dict[str, np.ndarray] = field(init=False)  # (keys,) of the oldest question, inf = none
    last_s: dict[str, np.ndarray] = field(init=False)  # (keys,) of the newest question, -inf = none

    def __post_init__(self) -> None:
        self.sums = {scope: np.zeros((self.keys[scope], state_width(scope))) for scope in _RUNNING}
        self.first_s = {scope: np.full(self.keys[scope], np.inf) for scope in _RUNNING}
        self.last_s = {scope: np.full(self.keys[scope], -np.inf) for scope in _RUNNING}
        self._of_all = np.zeros(2)
        self._of_features = np.zeros((self.num_features, 3))

    def take_day(
        self,
        start_s: float,
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
        `events`. All three are sorted by time and of the day that starts at `start_s`.
        """
        base = self._base_rate()
        facts = [
            (labelled, self._label_statistics(labelled, labels, base)),
            (events, self._event_statistics(events, values, features)),
        ]
        answers = [
            self._answer(scope, start_s, questions, [(rows, of[scope]) for rows, of in facts], base)
            for scope in _RUNNING
        ]
        self._of_all = (self._of_all + np.array([len(labels), labels.sum()])) * 0.5 ** (1 / BASE_HALF_LIFE_DAYS)
        known = ~np.isnan(values)
        moments = np.stack([np.ones(known.sum()), values[known], values[known] ** 2], 1)
        np.add.at(self._of_features, features[known], moments)
        return np.concatenate([np.full((len(questions), 1), base), *answers], 1)

    def _label_statistics(self, rows: KeyedRows, labels: np.ndarray, base: float) -> dict[str, np.ndarray]:
        """Return what each labelled row adds to its keys of each scope: (L, statistics)."""
        rate = {}
        for scope, key in (("user", rows.user), ("item", rows.item)):
            prior, sums = prior_facts(scope, base), self._longest(scope)
            clicks, facts = (np.where(key < 0, 0.0, sums[name][key]) for name in ("label_s", "label_n"))
            rate[scope] = (clicks + prior * base) / (facts + prior)
        both = np.clip(rate["user"] + rate["item"] - base, MIN_RATE, 1 - MIN_RATE)
        residuals = {"user": labels - rate["item"], "token": labels - both, "pair": labels - both}
        return {
            scope: _laid_out(scope, {"label_n": np.ones(len(rows)), "label_s": labels, "label_e": residuals.get(scope)})
            for scope in _RUNNING
        }

    def _event_statistics(self, rows: KeyedRows, values: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
        count, total, squares = self._of_features.T
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            variance = squares / count - mean**2
            deviation = np.sqrt(np.where(variance > MIN_VALUE_VARIANCE * squares / count, variance, np.nan))
            score = np.clip((values - mean[features]) / deviation[features], -MAX_VALUE_SCORE, MAX_VALUE_SCORE)
        scored = np.isfinite(score)
        score = np.where(scored, score, 0.0)
        expected = {}
        for scope, key in (("user", rows.user), ("item", rows.item)):
            sums = self._longest(scope)
            expected[scope] = np.where(
                key < 0, 0.0, sums["value_s"][key] / (sums["value_n"][key] + PRIOR_VALUES[scope])
            )
        residuals = {"user": score - expected["item"], "token": score - expected["user"] - expected["item"]}
        residuals["pair"] = residuals["token"]
        found = {}
        for scope in _RUNNING:
            residual = residuals.get(scope)
            statistics = {"event_n": np.ones(len(rows)), "value_n": scored.astype(float), "value_s": score}
            statistics |= {"value_e": None if residual is None else np.where(scored, residual, 0.0)}
            found[scope] = _laid_out(scope, statistics)
        return found

    def _longest(self, scope: str) -> dict[str, np.ndarray]:
        """Return the sums of the longest half-life by statistic, (keys,) each."""
        step = len(HALF_LIVES_DAYS[scope])
        return {name: self.sums[scope][:, s * step] for s, name in enumerate(STATISTICS[scope])}

    def _base_rate(self) -> float:
        facts, clicks = self._of_all + np.array([BASE_PRIOR[1], BASE_PRIOR[0]])
        return float(np.clip(clicks / facts, MIN_RATE, 1 - MIN_RATE))

    def _answer(
        self,
        scope: str,
        start_s: float,
        questions: KeyedRows,
        facts: list[tuple[KeyedRows, np.ndarray]],
        base_rate: float,
    ) -> np.ndarray:
        half_lives_s = np.tile(np.array(HALF_LIVES_DAYS[scope]) * DAY_S, len(STATISTICS[scope]))
        keys, times, added = [], [], []
        for rows, statistics in facts:
            row, key = rows.of_scope(scope)
            keys.append(key)
            times.append(rows.time_s[row] - start_s)
            added.append(np.repeat(statistics[row], len(HALF_LIVES_DAYS[scope]), axis=1))
        fact_key, fact_s, fact_sums = np.concatenate(keys), np.concatenate(times), np.concatenate(added)
        row, key = questions.of_scope(scope)
        asked_s = questions.time_s[row] - start_s
        sums = fading_sums(self.sums[scope], fact_key, fact_s, fact_sums, key, asked_s, half_lives_s)
        gap_s, age_s = self._times(scope, key, asked_s + start_s)
        at_end = fact_sums * np.exp2((fact_s[:, None] - DAY_S) / half_lives_s)
        self.sums[scope] *= np.exp2(-DAY_S / half_lives_s)
        np.add.at(self.sums[scope], fact_key, at_end)
        if scope in ("user", "item"):
            answer = np.zeros((len(questions), sums.shape[1] + 2))
            answer[:, -2:] = np.nan
            answer[row] = np.concatenate([sums, gap_s[:, None], age_s[:, None]], 1)
            return answer
        return token_means(scope, row, sums, gap_s, age_s, base_rate=np.full(len(questions), base_rate))

    def _times(self, scope: str, key: np.ndarray, asked_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return seconds since the newest and the oldest earlier question of each key, and remember these ones."""
        order = np.lexsort((asked_s, key))
        sorted_key, sorted_s = key[order], asked_s[order]
        first_of_key = _first_of_run(sorted_key)
        first_of_time = np.maximum(first_of_key, _first_of_run(sorted_s))
        later = first_of_time > first_of_key  # an earlier question of today is there
        newest = np.where(later, sorted_s[first_of_time - 1], self.last_s[scope][sorted_key])
        oldest = np.minimum(self.first_s[scope][sorted_key], np.where(later, sorted_s[first_of_key], np.inf))
        gap_s, age_s = np.full((2, len(key)), np.nan)
        gap_s[order] = np.where(np.isinf(newest), np.nan, sorted_s - newest)
        age_s[order] = np.where(np.isinf(oldest), np.nan, sorted_s - oldest)
        np.maximum.at(self.last_s[scope], key, asked_s)
        np.minimum.at(self.first_s[scope], key, asked_s)
        return gap_s, age_s


def fading_sums(
    before: np.ndarray,
    fact_key: np.ndarray,
    fact_s: np.ndarray,
    fact_sums: np.ndarray,
    key: np.ndarray,
    asked_s: np.ndarray,
    half_lives_s: np.ndarray,
) -> np.ndarray:
    """Return the sums of Q questions strictly before they were asked, (Q, C) float64.

    `before` (keys, C) are the sums at time 0; facts add `fact_sums` (F, C) at `fact_s` (F,); `half_lives_s` is (C,).
    """
    num_facts, num_questions = len(fact_key), len(key)
    keys, times = np.concatenate([fact_key, key]), np.concatenate([fact_s, asked_s])
    is_fact = np.repeat([True, False], [num_facts, num_questions])
    order = np.lexsort((is_fact, times, keys))  # at one time questions come first
    added = np.zeros((len(keys), before.shape[1]))
    added[:num_facts] = fact_sums * np.exp2(fact_s[:, None] / half_lives_s)
    added = added[order]
    total = np.cumsum(added, 0)
    first = _first_of_run(keys[order])
    found = np.empty_like(total)
    found[order] = before[keys[order]] + total - (total[first] - added[first])
    return found[num_facts:] * np.exp2(-asked_s[:, None] / half_lives_s)


def _first_of_run(sorted_values: np.ndarray) -> np.ndarray:
    """Return for each position where its run of equal values begins."""
    position = np.arange(len(sorted_values))
    begins = np.r_[True, sorted_values[1:] != sorted_values[:-1]][: len(position)]
    return np.maximum.accumulate(np.where(begins, position, 0)) if len(position) else position


def _laid_out(scope: str, statistics: dict[str, np.ndarray | None]) -> np.ndarray:
    """Return the statistics of a scope side by side, (rows, statistics); what is not given is 0."""
    rows = next(len(column) for column in statistics.values() if column is not None)
    laid_out = np.zeros((rows, len(STATISTICS[scope])))
    for s, name in enumerate(STATISTICS[scope]):
        column = statistics.get(name)
        if column is not None:
            laid_out[:, s] = column
    return laid_out
