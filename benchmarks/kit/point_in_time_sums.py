"""The sums of every impression of an in-memory log (`bahe_tasks.running_sums`), from its frames of landed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.running_sums import IMPRESSION_SUMS, title_tokens
from benchmarks.kit.label_times import LabelTimes
from benchmarks.kit.running_sums import KeyedRows, RunningSums


def point_in_time_sums(
    impressions: pd.DataFrame,
    titles: pd.Series,
    events: pd.DataFrame,
    cat: Mapping[str, np.ndarray],
    *,
    label_times: LabelTimes | None = None,
    stop_at_day_start: bool = False,
    as_published: bool = False,
) -> np.ndarray:
    """Return the sums of R impressions in order of shown_at, (R, len(IMPRESSION_SUMS)) float64.

    `impressions`: user_id, item_id, shown_at (µs since 1970), label; `titles` (R,), None = not known; `events`: user_id,
    feature, occurred_at (µs), text, and item_id and value where the log has them; `cat`: categorical columns, (R,) object each, None = absent. Events with `landed_from` (µs) are
    counted on the day they landed on. Labels are known when shown, unless `label_times` say otherwise; late impressions are no
    sightings and have sums of NaN. With `stop_at_day_start` all is as at the start of the impression's day; with `as_published` it is what a home
    whose numbers are as of the impression publishes the evening before.
    """
    events = events.sort_values("occurred_at", kind="stable").reset_index(drop=True)
    event_items = events["item_id"] if "item_id" in events else pd.Series([None] * len(events), dtype=object)
    users = _numbered(impressions["user_id"], events["user_id"])
    items = _numbered(impressions["item_id"], event_items)
    tokens = _numbered_tokens(titles, events["text"])
    values = _numbered_values(cat, len(impressions)), (np.zeros(len(events) + 1, np.int64), np.zeros(0, np.int64))
    rows = [
        _keyed(time, user, item, starts, token, cat_starts, value)
        for time, user, item, (starts, token), (cat_starts, value) in zip(
            (impressions["shown_at"], events["occurred_at"]), users, items, tokens, values, strict=True
        )
    ]
    pairs, num_pairs = _numbered_alike(*(r.pair for r in rows))
    user_items, num_user_items = _numbered_alike(*(r.user_item for r in rows))
    shown, happened = (
        replace(r, pair=pair, user_item=user_item) for r, pair, user_item in zip(rows, pairs, user_items, strict=True)
    )
    counts = {
        "user": max(map(_largest, users)) + 1,
        "item": max(map(_largest, items)) + 1,
        "token": max(_largest(token) for _, token in tokens) + 1,
        "user_item": num_user_items,
        "pair": num_pairs,
        "cat": _largest(values[0][1]) + 1,
    }
    features, feature_of = np.unique(events["feature"].to_numpy(str), return_inverse=True)
    of_events = events["value"].to_numpy(np.float64) if "value" in events else np.full(len(events), np.nan)
    labels = impressions["label"].to_numpy(np.float64)
    state = RunningSums(counts, len(features), as_of_day_start=stop_at_day_start, as_published=as_published)
    found = np.full((len(impressions), len(IMPRESSION_SUMS)), np.nan)
    is_late = np.zeros(len(shown), bool) if label_times is None else label_times.is_late
    counted_us = shown.time_us if label_times is None else label_times.counted_us
    train_days = shown.time_us // DAY_US if label_times is None else label_times.train_days.astype(np.int64)
    landed_from = events["landed_from"].to_numpy(np.int64) if "landed_from" in events else happened.time_us
    asked, known, past = (
        _OfDays.of(replace(rows, time_us=time_us), days, places)
        for rows, time_us, days, places in (
            (shown, shown.time_us, shown.time_us // DAY_US, np.flatnonzero(~is_late)),
            (shown, counted_us, train_days, np.arange(len(shown))),
            (happened, happened.time_us, landed_from // DAY_US, np.arange(len(happened))),
        )
    )
    first = min([*asked.days[:1], *known.days[:1], *past.days[:1]], default=0)
    for day in range(int(first), int(np.max(asked.days, initial=-1)) + 1):
        (asking, questions), (known_rows, labelled), (past_rows, of_past) = (of.day(day) for of in (asked, known, past))
        found[asking] = state.take_day(
            day * DAY_US,
            questions,
            labelled=labelled,
            labels=labels[known_rows],
            events=of_past,
            values=of_events[past_rows],
            features=feature_of.reshape(-1)[past_rows],
        )
    return found


class _OfDays(NamedTuple):
    """Rows in the order of the days that count them, of one day in order of time."""

    rows: KeyedRows
    days: np.ndarray  # (R,) int64, ascending
    places: np.ndarray  # (R,) int64, where each row stood

    @classmethod
    def of(cls, rows: KeyedRows, days: np.ndarray, places: np.ndarray) -> _OfDays:
        order = places[np.lexsort((rows.time_us[places], days[places]))]
        return cls(rows.take(order), days[order], order)

    def day(self, day: int) -> tuple[np.ndarray, KeyedRows]:
        """Return the places and rows of a day."""
        part = slice(*np.searchsorted(self.days, [day, day + 1]))
        return self.places[part], self.rows.part(part)


def _largest(numbers: np.ndarray) -> int:
    return int(numbers.max(initial=-1))


def _numbered(first: pd.Series, second: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct ids of both columns; -1 = absent."""
    numbers, _ = pd.factorize(pd.concat([first, second], ignore_index=True))
    return numbers[: len(first)].astype(np.int64), numbers[len(first) :].astype(np.int64)


def _numbered_tokens(
    titles: pd.Series, texts: pd.Series
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (starts, tokens) of each column of texts, tokens numbered alike."""
    number_of: dict[str, int] = {}
    tokens_of = {
        text: np.array([number_of.setdefault(token, len(number_of)) for token in title_tokens(text)], np.int64)
        for text in dict.fromkeys([*titles.dropna(), *texts])
    }
    nothing = np.zeros(0, np.int64)
    found = []
    for column in (titles, texts):
        tokens = [nothing if pd.isna(text) else tokens_of[text] for text in column]
        starts = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
        found.append((starts, np.concatenate([nothing, *tokens])))
    return found[0], found[1]


def _numbered_values(cat: Mapping[str, np.ndarray], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (starts, values) of the columns, each value of each column numbered."""
    numbers, first = [np.zeros((0, num_rows), np.int64)], 0
    for column in cat.values():
        of_column, distinct = pd.factorize(column)  # None is -1
        numbers.append(np.where(of_column < 0, -1, first + of_column)[None])
        first += len(distinct)
    of_rows = np.concatenate(numbers).T
    return np.concatenate([[0], np.cumsum((of_rows >= 0).sum(1))]).astype(np.int64), of_rows[of_rows >= 0]


def _keyed(
    time_us: pd.Series,
    user: np.ndarray,
    item: np.ndarray,
    starts: np.ndarray,
    token: np.ndarray,
    cat_starts: np.ndarray,
    cat: np.ndarray,
) -> KeyedRows:
    """Return the rows with pairs as user · 2^32 + token, those of user and item likewise, to be numbered."""
    pair = np.repeat(user, np.diff(starts)) * 2**32 + token
    return KeyedRows(time_us.to_numpy(np.int64), user, item, user * 2**32 + item, starts, token, pair, cat_starts, cat)


def _numbered_alike(first: np.ndarray, second: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Number the distinct numbers of both, (E,) int64 each, and return how many there are."""
    distinct, numbers = np.unique(np.concatenate([first, second]), return_inverse=True)
    numbers = numbers.reshape(-1)
    return (numbers[: len(first)], numbers[len(first) :]), len(distinct)
