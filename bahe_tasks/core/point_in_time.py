"""Point-in-time numbers: what the model reads of the running sums at an impression (`bahe_tasks.running_sums`).

Everything is on a fixed scale of about one unit, so that no statistics of a day are needed: counts and times as
logarithms, rates and residuals of labels as differences of log-odds, means of values in deviations of their feature.

The one function of training and of scoring.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bahe_tasks.core.rows_at import RowsAt
from bahe_tasks.running_sums import (
    ALWAYS,
    HALF_LIVES,
    IMPRESSION_SUMS,
    MIN_RATE,
    PRIOR_VALUES,
    STATISTICS,
    HalfLife,
    prior_facts,
    shift_of_residuals,
)

_CLIPPED_AT = 4.0
_ROWS_IN_CACHE = 8192
NUM_SHIFTS_OF_LOG = len(HALF_LIVES["log"])
"""So many of the numbers, the last, no head reads."""
NUM_SHIFTS = NUM_SHIFTS_OF_LOG + len(HALF_LIVES["cat"])
"""So many of the numbers, the last, are each added to the log-odds of a click, times a learned factor."""
_COLUMN_OF = {name: c for c, name in enumerate(IMPRESSION_SUMS)}


def point_in_time_numbers(sums: np.ndarray | RowsAt, first_rate: float = 0.5) -> np.ndarray:
    """Return the numbers NUMBERS of R impressions, (R, K) float32, NaN = absent.

    `sums` is (R, len(IMPRESSION_SUMS)) float64, NaN = absent; `first_rate` stands for a base rate that no label told, so also
    for that of a late impression, of which nothing is counted: without one it would pass for a coin.
    """
    found, start = np.empty((len(sums), len(NUMBERS)), np.float32), 0
    for part in _pieces(sums):
        by_number = np.stack(list(_numbers_by_name(part, first_rate).values()))
        found[start : start + len(part)] = np.clip(by_number, -_CLIPPED_AT, _CLIPPED_AT, out=by_number).T
        start += len(part)
    return found


def expected_log_odds(sums: np.ndarray | RowsAt, first_rate: float = 0.5) -> np.ndarray:
    """Return the log-odds of a click that the numbers of R impressions expect, (R,) float32.

    The item's rate, shifted by how much more the user clicks than the rates of the items it met say.
    """
    numbers = np.nan_to_num(point_in_time_numbers(sums, first_rate))
    read = [(np.float32(factor), c) for c, factor in enumerate(EXPECTED_OF_NUMBERS) if factor]
    return np.sum([factor * numbers[:, c] for factor, c in read], axis=0)


def numbers_lacking(sums: np.ndarray | RowsAt) -> tuple[str, ...]:
    """Return what none of R impressions (R, len(IMPRESSION_SUMS)) has, in words; empty for no impressions."""
    counts = {
        "labels of its user known before": "user_label_n_infd",
        "labels of its item known before": "item_label_n_infd",
        "labels of a word of its title known before": "token_log_n",
        "labels of its user on a word of its title known before": "pair_log_n",
        "labels of its user on the very item known before": "user_item_label_n_infd",
        "behavior events of its user": "user_event_n_infd",
        "behavior events about its item": "item_event_n_infd",
        "behavior events of its user about the very item": "user_item_event_n_infd",
        "behavior events with a value": "user_value_n_infd",
        "labels of a categorical value known before": f"cat_label_{HALF_LIVES['cat'][0].name}",
    }
    lacking = dict(counts) if len(sums) else {}
    for part in _pieces(sums):
        lacking = {words: name for words, name in lacking.items() if not np.nan_to_num(_column(part, name)).any()}
        if not lacking:
            break
    return tuple(lacking)


def _pieces(sums: np.ndarray | RowsAt) -> Iterator[np.ndarray]:
    """Yield some thousand rows at a time, each column in one piece of memory: numbers are made of columns, in the caches."""
    for start in range(0, len(sums), _ROWS_IN_CACHE):
        yield np.asfortranarray(sums[start : start + _ROWS_IN_CACHE])


class _Base(NamedTuple):
    """What all rates are measured against, made once: (R,) each."""

    rate: np.ndarray
    log_odds: np.ndarray
    prior: dict[str, np.ndarray]  # scope → `prior_facts`

    @classmethod
    def of(cls, sums: np.ndarray, first_rate: float) -> _Base:
        rate = _base_rate(sums, first_rate)
        return cls(rate, _log_odds(rate), {scope: prior_facts(scope, rate) for scope in ("log", "user", "item")})


def _numbers_by_name(sums: np.ndarray, first_rate: float) -> dict[str, np.ndarray]:
    base = _Base.of(sums, first_rate)
    shift = _shift_of_rate(sums, "item", ALWAYS, base) + _shift_of_user(sums, ALWAYS, base)
    found = {"base": base.log_odds / 2, "expected": shift}
    for scope in ("user", "item"):
        for half_life in HALF_LIVES[scope]:
            name = f"{scope}_{{}}_{half_life.name}"
            found[name.format("labels")] = _scaled_count(_sum(sums, scope, "label_n", half_life))
            found[name.format("events")] = _scaled_count(_sum(sums, scope, "event_n", half_life))
            found[name.format("rate")] = _shift_of_rate(sums, scope, half_life, base)
            for statistic in ("value_s", "value_e"):
                if statistic in STATISTICS[scope]:
                    facts = _sum(sums, scope, "value_n", half_life) + PRIOR_VALUES[scope]
                    found[name.format(statistic)] = 2 * _sum(sums, scope, statistic, half_life) / facts
            if "label_e" in STATISTICS[scope]:
                found[name.format("shift")] = _shift_of_user(sums, half_life, base)
        found |= {
            f"{scope}_{kind}": _scaled_log(np.log1p(_column(sums, f"{scope}_{kind}_s"))) for kind in ("gap", "age")
        }
    found |= _numbers_of_user_item(sums, base.rate)
    for scope in ("token", "pair"):
        for half_life in HALF_LIVES[scope]:
            found[f"{scope}_shift_{half_life.name}"] = 2 * _column(sums, f"{scope}_label_{half_life.name}")
            found[f"{scope}_value_{half_life.name}"] = 4 * _column(sums, f"{scope}_value_{half_life.name}")
        for extreme in ("max", "min"):
            found[f"{scope}_shift_{extreme}"] = 2 * _column(sums, f"{scope}_label_{extreme}")
            found[f"{scope}_value_{extreme}"] = 4 * _column(sums, f"{scope}_value_{extreme}")
        found[f"{scope}_labels"] = _column(sums, f"{scope}_log_n") / 3 - 1
        found |= {f"{scope}_{kind}": _scaled_log(_column(sums, f"{scope}_log_{kind}")) for kind in ("gap", "age")}
    for half_life in HALF_LIVES["cat"]:
        found[f"cat_shift_{half_life.name}"] = _column(sums, f"cat_label_{half_life.name}")
    for half_life in HALF_LIVES["log"]:
        found[f"log_rate_{half_life.name}"] = _shift_of_rate(sums, "log", half_life, base)
    return found


def _numbers_of_user_item(sums: np.ndarray, base: np.ndarray) -> dict[str, np.ndarray]:
    """Of a user who never met the item all are 0 or absent: a log in which no one meets an item twice is left as it is."""
    labels, events, residuals = (_sum(sums, "user_item", name, ALWAYS) for name in ("label_n", "event_n", "label_e"))
    return {
        "user_item_labels": np.log1p(labels),
        "user_item_events": np.log1p(events),
        "user_item_shift": shift_of_residuals("user_item", residuals, labels, base),
        **{f"user_item_{kind}": _scaled_log(np.log1p(_column(sums, f"user_item_{kind}_s"))) for kind in ("gap", "age")},
    }


def _shift_of_rate(sums: np.ndarray, scope: str, half_life: HalfLife, base: _Base) -> np.ndarray:
    """Log-odds of the smoothed rate minus those of the base rate."""
    prior = base.prior[scope]
    clicks, facts = _sum(sums, scope, "label_s", half_life), _sum(sums, scope, "label_n", half_life)
    return _log_odds((clicks + prior * base.rate) / (facts + prior)) - base.log_odds


def _shift_of_user(sums: np.ndarray, half_life: HalfLife, base: _Base) -> np.ndarray:
    """Log-odds of the user's smoothed rate minus those of the rate that the items it met let expect."""
    prior = base.prior["user"]
    clicks, facts = _sum(sums, "user", "label_s", half_life), _sum(sums, "user", "label_n", half_life)
    expected = clicks - _sum(sums, "user", "label_e", half_life)
    smoothed = [(count + prior * base.rate) / (facts + prior) for count in (clicks, expected)]
    return _log_odds(smoothed[0]) - _log_odds(smoothed[1])


def _base_rate(sums: np.ndarray, first_rate: float) -> np.ndarray:
    base = _column(sums, "base_rate")
    return np.clip(np.where(np.isnan(base), first_rate, base), MIN_RATE, 1 - MIN_RATE)


def _sum(sums: np.ndarray, scope: str, statistic: str, half_life: HalfLife) -> np.ndarray:
    return _column(sums, f"{scope}_{statistic}_{half_life.name}")


def _column(sums: np.ndarray, name: str) -> np.ndarray:
    return sums[:, _COLUMN_OF[name]]


def _log_odds(rate: np.ndarray) -> np.ndarray:
    rate = np.clip(rate, MIN_RATE, 1 - MIN_RATE)
    return np.log(rate / (1 - rate))


def _scaled_count(count: np.ndarray) -> np.ndarray:
    return np.log1p(count) / 3 - 1


def _scaled_log(log_seconds: np.ndarray) -> np.ndarray:
    return log_seconds / 5 - 2


NUMBERS: tuple[str, ...] = tuple(_numbers_by_name(np.zeros((0, len(IMPRESSION_SUMS))), 0.5))
"""Names of the numbers, in the order of the columns."""

EXPECTED_OF_NUMBERS: tuple[float, ...] = tuple({"base": 2.0, "expected": 1.0}.get(name, 0.0) for name in NUMBERS)
"""Factors of the numbers whose sum is `expected_log_odds`."""
