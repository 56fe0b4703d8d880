"""A log as codes and padded sequences, what the networks and the linear model read.

An id that has not been seen in training has its first, untrained embedding; numbering all ids of the log beforehand
gives nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.kit.in_memory_log import InMemoryLog

_LENGTH_CLASSES = 32
"""Of a history's length, two for each doubling."""


@dataclass(frozen=True)
class Inputs:
    """R impressions. Text codes are rows of the embedding matrix plus two; 0 is padding, 1 an unknown title."""

    ids: dict[str, np.ndarray]  # (R,) int64 by field: user, item, every cat column, length class of each history
    vocabulary: dict[str, int]  # number of codes of each field
    titles: np.ndarray  # (R,) int64 text codes
    histories: dict[str, np.ndarray]
    """(R, S) int64 text codes by text feature, newest first, 0 after the oldest; an empty one of a log without events."""
    num_texts: int  # M + 2
    numbers: np.ndarray  # (R, K) float32, NaN = absent
    labels: np.ndarray  # (R,) float32


def inputs_of(log: InMemoryLog, *, max_behaviors: int, numbers: np.ndarray | None = None) -> Inputs:
    """Return the log's ids and its newest `max_behaviors` behaviors; `numbers` (R, K) stand beside its num columns."""
    rows = log.rows
    columns = {"user": rows.user_ids, "item": rows.item_ids, **{f"cat_{n}": c for n, c in rows.cat.items()}}
    ids, vocabulary = {}, {}
    for name, column in columns.items():
        distinct, codes = np.unique([str(value) for value in column], return_inverse=True)
        ids[name], vocabulary[name] = codes.astype(np.int64), len(distinct)
    for name, history in sorted(rows.histories.items()):
        classes = 2 * np.log2(1.0 + history.ends - history.starts)
        ids[f"num_{name}"] = np.minimum(classes, _LENGTH_CLASSES - 1).astype(np.int64)
        vocabulary[f"num_{name}"] = _LENGTH_CLASSES
    own = [column.astype(np.float32)[:, None] for column in rows.num.values()]
    parts = [*own, *([] if numbers is None else [numbers.astype(np.float32)])]
    return Inputs(
        ids=ids,
        vocabulary=vocabulary,
        titles=rows.title_rows + 2,
        histories={
            name: newest_first(h.behavior_rows + 2, h.starts, h.ends, max_behaviors)
            for name, h in sorted(rows.histories.items())
        }
        or {"no_events": np.zeros((len(rows), 1), np.int64)},
        num_texts=len(log.texts) + 2,
        numbers=np.concatenate([np.empty((len(rows), 0), np.float32), *parts], axis=1),
        labels=rows.labels,
    )


def newest_first(values: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int) -> np.ndarray:
    """Return (R, most): values[starts[r] : ends[r]] from the last backwards, then zeros."""
    positions = ends[:, None] - 1 - np.arange(most)
    inside = positions >= starts[:, None]
    return np.where(inside, values[np.where(inside, positions, 0)] if len(values) else 0, 0)
