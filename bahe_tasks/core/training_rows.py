"""Rows in memory, and what is computed once for all batches of them.

A history is a slice of the arrays its user's impressions share: it is never copied per impression. Impressions with the
same histories as of the same time are one user state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bahe_tasks.core.columns import hashed_rows, normalised_numbers
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import point_in_time_numbers
from bahe_tasks.core.rows_at import RowsAt
from bahe_tasks.running_sums import IMPRESSION_SUMS

_SPANS_AT_ONCE = 4096


@dataclass(frozen=True)
class Histories:
    """One text feature's histories of R impressions: row r reads positions [starts[r], ends[r]), oldest first."""

    behavior_rows: np.ndarray  # (E,) int64, row in the embedding matrix
    occurred_at: np.ndarray  # (E,) int64, microseconds since 1970 UTC
    starts: np.ndarray  # (R,) int64, already clipped to the newest S
    ends: np.ndarray  # (R,) int64, exclusive


@dataclass(frozen=True)
class ImpressionRows:
    """R impressions in training order: by shown_at, then impression_id."""

    impression_ids: np.ndarray  # (R,) object
    user_ids: np.ndarray  # (R,) object
    item_ids: np.ndarray  # (R,) object
    shown_at: np.ndarray  # (R,) int64, microseconds since 1970 UTC
    as_of: np.ndarray  # (R,) int64, the time histories end at and ages count to, at or before shown_at
    labels: np.ndarray  # (R,) float32, 0 or 1
    title_rows: np.ndarray  # (R,) int64, row in the embedding matrix, -1 = no title known
    histories: dict[str, Histories]  # by text feature
    cat: dict[str, np.ndarray]  # (R,) object, None = absent
    num: dict[str, np.ndarray]  # (R,) float64, NaN = absent
    extra_labels: dict[str, np.ndarray] = field(default_factory=dict)  # (R,) float32, 0 or 1, NaN = absent
    sums: np.ndarray | RowsAt | None = None  # (R, len(IMPRESSION_SUMS)) float64, NaN = absent
    outcome_values: np.ndarray | None = None  # (R,) float64, NaN = none (`bahe_tasks.outcome_values`)

    def __len__(self) -> int:
        return len(self.impression_ids)


def texts_read(rows: Sequence[ImpressionRows]) -> np.ndarray:
    """Return the sorted numbers of the texts that histories and titles of these impressions point to, int64."""
    found = [np.zeros(0, np.int64)]
    for part in rows:
        found.append(part.title_rows[part.title_rows >= 0])
        for history in part.histories.values():
            spans = _spans_of(history)
            for first in range(0, len(spans), _SPANS_AT_ONCE):
                read = [history.behavior_rows[span] for span in spans[first : first + _SPANS_AT_ONCE]]
                found.append(np.unique(np.concatenate(read)))
    return np.unique(np.concatenate(found))


def _spans_of(history: Histories) -> list[slice]:
    """Return the parts of the behaviors that rows point to, none twice: what lies between may be a file far larger than memory."""
    order = np.argsort(history.starts, kind="stable")
    starts, ends = history.starts[order], np.maximum.accumulate(history.ends[order])
    begins = np.flatnonzero(np.append(True, starts[1:] > ends[:-1])[: len(starts)])
    lasts = np.append(begins[1:], len(starts))[: len(begins)] - 1
    return [slice(start, end) for start, end in zip(starts[begins].tolist(), ends[lasts].tolist(), strict=True)]


@dataclass(frozen=True)
class RowColumns:
    """What is computed once for all batches of R impressions."""

    cat: np.ndarray  # (R, C) int64
    num: np.ndarray  # (R, K) float32
    user_states: np.ndarray  # (R,) int64, equal where histories and their time are


def row_columns(rows: ImpressionRows, spec: ModelSpec) -> RowColumns:
    """Hash categorical columns, normalise numeric ones and tell the user states apart."""
    apart = spec.model.item_reading == "apart"
    return RowColumns(
        cat=hashed_columns(spec, user_ids=rows.user_ids, item_ids=rows.item_ids, cat=rows.cat),
        num=numbers_read(spec, rows.num, rows.sums, num_rows=len(rows)),
        user_states=user_states(rows, spec.features) if apart else np.arange(len(rows)),
    )


def hashed_columns(
    spec: ModelSpec, *, user_ids: np.ndarray, item_ids: np.ndarray, cat: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the embedding rows of ids and categorical columns, (R, C) int64, 0 = absent."""
    columns = {"id:user": user_ids, "id:item": item_ids} | {f"cat:{name}": column for name, column in cat.items()}
    return hashed_rows(columns, spec.hashed_columns, num_rows=len(user_ids), buckets=spec.model.hash_buckets)


def numbers_read(
    spec: ModelSpec, num: dict[str, np.ndarray], sums: np.ndarray | RowsAt | None, *, num_rows: int
) -> np.ndarray:
    """Return the log's numeric columns and beside them the point-in-time numbers, (R, K) float32, NaN = absent.

    `sums` (R, len(IMPRESSION_SUMS)) is None where nothing was counted, of any of them.
    """
    of_log = normalised_numbers(spec.num_statistics, num, num_rows=num_rows)
    if not spec.numbers:
        return of_log
    return np.concatenate([of_log, point_in_time_numbers(sums_read(sums, num_rows), spec.first_rate)], 1)


def sums_read(sums: np.ndarray | RowsAt | None, num_rows: int) -> np.ndarray | RowsAt:
    """Return the sums of R rows, (R, len(IMPRESSION_SUMS)); of rows of which nothing was counted all are absent."""
    return np.full((num_rows, len(IMPRESSION_SUMS)), np.nan) if sums is None else sums


def user_states(rows: ImpressionRows, features: tuple[str, ...]) -> np.ndarray:
    """Number the distinct (histories, as_of) in no particular order: (R,) int64. Without any history the time is nothing."""
    columns = [rows.as_of]
    for feature in features:
        if feature in rows.histories:
            history = rows.histories[feature]
            filled = history.ends > history.starts
            columns += [np.where(filled, history.starts, -1), np.where(filled, history.ends, -1)]
    keys = np.stack(columns, 1)
    keys[(keys[:, 1:] == -1).all(1), 0] = 0
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def passed_together(rows: ImpressionRows, features: tuple[str, ...], columns: RowColumns) -> np.ndarray:
    """Return a number for each row (R,) int64, the same for rows that share the deep layers' work on their user.

    Rows without any history have a number each: they pass no deep layer that they could share.
    """
    _, first, state = np.unique(columns.user_states, return_index=True, return_inverse=True)
    own = np.arange(len(rows))
    filled = np.zeros(len(rows), bool)
    for feature in features:
        if feature in rows.histories:
            filled |= rows.histories[feature].ends > rows.histories[feature].starts
    return np.where(filled, first[state.reshape(-1)], own)


def num_behaviors(rows: ImpressionRows, features: tuple[str, ...]) -> np.ndarray:
    """Return the behaviors of each row's histories, all text features together, (R,) int64."""
    return sum(
        (rows.histories[name].ends - rows.histories[name].starts for name in features if name in rows.histories),
        np.zeros(len(rows), np.int64),
    )


def shuffled(states: np.ndarray, *, seed: tuple[int, ...]) -> np.ndarray:
    """Return the rows (R,) int64 in an order drawn from the seed, rows of one state together."""
    place = np.random.default_rng(seed).permutation(len(states))
    return np.argsort(place[states], kind="stable")
