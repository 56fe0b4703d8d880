"""Running sums: what is counted of every user, item, title token, categorical value, (user, item) and (user, token), and
how it is laid out.

Facts are labels, once known, and behavior events, once they happened. Each fact adds to the sums of its keys; a sum fades
with a half-life, so one of 3 days is a window that needs no list of days. Some fade with each further fact, not with time:
they say how the newest few went, however long ago that was. A question is an impression: it reads the sums of its keys as
they were strictly before it was shown, and the log's as they were before that second. Spark keeps the sums (table
`running_sums`), training and scoring turn them into the numbers a model reads (`core.point_in_time`); both take names and
constants from here.

A residual is a fact minus what was expected of it: the smoothed means as they stood at the start of the day it became
known (`bahe_tasks.base_rate` on the first such day of a log). `label_e` of a user is against the item's rate; of all others against item's and user's together.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import regex


class HalfLife(NamedTuple):
    """After what a fact counts half."""

    days: float = math.inf
    facts: float = math.inf
    """Further facts of the key, of the same kind (labels, events, or values), in the order of the days that count them and
    then of time."""

    @property
    def name(self) -> str:
        """As it stands in IMPRESSION_SUMS."""
        return _name(self)


@cache
def _name(half_life: HalfLife) -> str:
    return f"{half_life.days:g}d" if math.isinf(half_life.facts) else f"{half_life.facts:g}f"


ALWAYS, NEWEST = HalfLife(), HalfLife(facts=5.0)
HALF_LIVES: dict[str, tuple[HalfLife, ...]] = {
    "log": (HalfLife(facts=50.0), HalfLife(facts=500.0)),
    "user": (ALWAYS, HalfLife(28.0), HalfLife(3.0), NEWEST),
    "item": (ALWAYS, HalfLife(28.0), HalfLife(3.0), NEWEST),
    "user_item": (ALWAYS,),
    "token": (ALWAYS, HalfLife(28.0)),
    "pair": (ALWAYS, HalfLife(28.0)),
    "cat": (HalfLife(facts=10.0), HalfLife(facts=100.0)),
}
"""Half-lives of each scope's sums; `log` is the one key of all labels, `user_item` a user and an item, `pair` a user and a token,
`cat` a `cat_*` column and a value of it."""

STATISTICS: dict[str, tuple[str, ...]] = {
    "log": ("label_n", "label_s"),
    "user": ("label_n", "label_s", "label_e", "event_n", "value_n", "value_s", "value_e"),
    "item": ("label_n", "label_s", "event_n", "value_n", "value_s"),
    "user_item": ("label_n", "label_e", "event_n"),
    "token": ("label_n", "label_e", "value_n", "value_e"),
    "pair": ("label_n", "label_e", "value_n", "value_e"),
    "cat": ("label_n", "label_e"),
}
"""What is summed: _n facts, _s labels or values, _e residuals. `event_n` counts events with and without a value."""

STATE_STATISTICS: dict[str, tuple[str, ...]] = {
    "all": ("label_n", "label_s"),
    "feature": ("n", "sum", "sum_of_squares"),
}
"""Sums read as of the start of a day only: of the whole log (half-life BASE_HALF_LIFE_DAYS), and of values by text
feature (they never fade); a value counts as (value - mean) / deviation of its feature, clipped to ±MAX_VALUE_SCORE."""

BASE_HALF_LIFE_DAYS = 28.0
BASE_PRIOR = (1.0, 2.0)
"""Clicks and impressions added to the log's own before the base rate is taken."""

PRIOR_LOG_ODDS_VARIANCE: dict[str, float] = {
    **dict.fromkeys(("log", "user", "item", "user_item", "pair", "cat"), 0.8),
    "token": 0.2,
}
"""Smoothing of labels: how far the log-odds of a key's rate are thought to vary around those expected of it. At base rate m
that weighs as much as 1 / (variance · m (1 - m)) facts: 5 for an item at m = 0.5, 126 at m = 0.01."""

PRIOR_VALUES: dict[str, float] = {"user": 5.0, "item": 5.0, "token": 20.0, "pair": 5.0}
"""Smoothing of values: facts of score 0 (or residual 0) added to a key's own before its mean is taken."""

LOG_STEP_US = 1_000_000
"""The log's own sums are read as of the start of the step, so many microseconds, in which an impression was shown."""

MIN_RATE = 1e-4
"""Rates are kept this far from 0 and 1."""

MAX_VALUE_SCORE = 3.0
MIN_VALUE_VARIANCE = 1e-9
"""Values that vary by less, relative to their mean square, do not vary but for rounding: they have no score."""

MAX_TITLE_TOKENS = 32

_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*")
_UNSPACED = regex.compile(r"((?:[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*)+)")
"""Scripts that write words without spaces between them."""
_BITS_DROPPED = 4


def state_width(scope: str) -> int:
    """Return the length of the array `sums` of a scope: statistics × half-lives, statistics outermost."""
    if scope in STATE_STATISTICS:
        return len(STATE_STATISTICS[scope])
    return len(STATISTICS[scope]) * len(HALF_LIVES[scope])


def title_tokens(text: str) -> list[str]:
    """Return the distinct words of a title in lower case, in order, at most MAX_TITLE_TOKENS.

    A script that leaves no spaces between words is told by its pairs of adjacent characters.
    """
    parts = (part for word in _WORD.findall(text.lower()) for part in _UNSPACED.split(word) if part)
    return list(dict.fromkeys(token for part in parts for token in _tokens_of(part)))[:MAX_TITLE_TOKENS]


def _tokens_of(part: str) -> list[str]:
    characters = regex.findall(r"\X", part) if _UNSPACED.match(part) else []
    return ["".join(pair) for pair in pairwise(characters)] or [part]


def state_key(*parts: str) -> int:
    """Return the key of a user, item, token, pair of them, or column and value: the first 60 bits of sha256 over its NUL-joined ids.

    A NUL of an id itself is the byte 255, which UTF-8 does not have.
    """
    joined = "\x00".join(parts).encode("utf-8", "surrogatepass")
    if joined.count(0) >= len(parts):
        joined = b"\x00".join([part.encode("utf-8", "surrogatepass").replace(b"\x00", b"\xff") for part in parts])
    digest = hashlib.sha256(joined).digest()
    return int.from_bytes(digest[:8], "big") >> _BITS_DROPPED


def _names() -> tuple[str, ...]:
    names = ["base_rate", *_names_of("log")]
    for scope in ("user", "item", "user_item"):
        names += [*_names_of(scope), f"{scope}_gap_s", f"{scope}_age_s"]
    for scope in ("token", "pair"):
        for kind in ("label", "value"):
            names += [f"{scope}_{kind}_{half_life.name}" for half_life in HALF_LIVES[scope]]
        names += [f"{scope}_{kind}_{extreme}" for kind in ("label", "value") for extreme in ("max", "min")]
        names += [f"{scope}_log_n", f"{scope}_log_gap", f"{scope}_log_age"]
    return (*names, *(f"cat_label_{half_life.name}" for half_life in HALF_LIVES["cat"]))


def _names_of(scope: str) -> list[str]:
    """Return the names of a scope's own sums, statistics outermost."""
    return [
        f"{scope}_{statistic}_{half_life.name}" for statistic in STATISTICS[scope] for half_life in HALF_LIVES[scope]
    ]


IMPRESSION_SUMS: tuple[str, ...] = _names()
"""Order of the array `sums` of an impression.

base_rate: share of clicks at the start of the day, absent until a day before has counted a label. log_*: sums over all labels as they were before the second in which
the impression was shown. user_*, item_*, user_item_*: their sums when the impression was shown; gap_s and age_s: seconds
since the newest and since the oldest impression of the key before it (NaN: none). token_*, pair_*: means over
the tokens of the title: label: label_e / (label_n · m (1 - m) + 1 / PRIOR_LOG_ODDS_VARIANCE), m the base rate (`bahe_tasks.base_rate` where it is absent); value:
value_e / (value_n + PRIOR_VALUES); log_n: ln(1 + label_n) of the longest half-life; log_gap and log_age: ln(1 + gap_s) and
ln(1 + age_s) of the tokens met before (NaN: none). label_max … value_min are the largest and smallest instead of the mean, of
the longest half-life. Without a title all are NaN. cat_*: means over the values of the impression's `cat_*` columns, its
item's among them, as label of tokens; NaN without any. A late impression has NaN everywhere.
"""


_DEFINITION = "3"
"""Raised whenever sums of the same names would mean something else."""

KEY_OF_ALL = state_key("all", _DEFINITION, *IMPRESSION_SUMS)
"""Key of the sums of scope `all`. It names all sums that are counted, so a state of others is known by lacking it."""


def shift_of_residuals(scope: str, residuals: Any, labels: Any, base_rate: Any) -> Any:
    """Return by how much a key's log-odds lie above those expected, given the sum of residuals of so many labels; arrays or numbers."""
    return residuals / (labels * base_rate * (1 - base_rate) + 1 / PRIOR_LOG_ODDS_VARIANCE[scope])


def prior_facts(scope: str, base_rate: Any) -> Any:
    """Return how many facts at the expected rate, a number or an array of them, smooth a key's own labels."""
    return 1 / (PRIOR_LOG_ODDS_VARIANCE[scope] * base_rate * (1 - base_rate))
