"""Segments of the progressive predictions: how much was known of the user, of the item, and of what the user did.

Told from the tables when metrics are read, not kept with the predictions, so that a new segment needs no new day. All
of it was known before the impression's day began, or before the impression itself, as the model knew it.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa

from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.stages.days_in_force import readable_partitions
from bahe_tasks.stores.delta_tables import read_table

SEGMENTS: dict[str, tuple[int, ...]] = {
    "user_impressions": (0, 1, 10),
    "item_impressions": (0, 1, 10),
    "history_length": (0, 1, 10, 50),
}
"""Each segment's values: the least number each of them begins with."""

UNKNOWN = "unknown"

_DAY_BITS = 20  # a day's place in a key; the id's code stands above it


def value_names(segment: str) -> list[str]:
    """Return the values of a segment in order: "0", "1-9", "10+"."""
    starts = SEGMENTS[segment]
    ends = [f"-{after - 1}" if after - start > 1 else "" for start, after in pairwise(starts)]
    return [f"{start}{end}" for start, end in zip(starts, [*ends, "+"], strict=True)]


def segments_of(predictions: pa.Table, config: Config) -> dict[str, np.ndarray]:
    """Return, per segment, the value of each prediction, (R,) str; `predictions` has dt, impression_id and both ids.

    user_impressions and item_impressions count the impressions of the user and of the item that landed on earlier
    days; days whose inputs did not pass do not count, no model read them. history_length counts the behaviors a model
    could read before the impression: the newest S of each text feature. It is `UNKNOWN` where a day was landed anew and
    no longer has the impression.
    """
    if not predictions.num_rows:
        return {segment: np.empty(0, object) for segment in SEGMENTS}
    days = np.asarray(predictions["dt"], dtype="datetime64[D]")
    first, last = days.min().item(), days.max().item()
    earlier = read_table(
        config.tables_dir,
        "impressions",
        columns=["dt", "user_id", "item_id"],
        partitions=readable_partitions(date.min, last, config),
    )
    counts = {
        "user_impressions": _landed_before("user_id", predictions, earlier),
        "item_impressions": _landed_before("item_id", predictions, earlier),
        "history_length": _history_lengths(predictions, first, last, config),
    }
    return {segment: _values(segment, count) for segment, count in counts.items()}


def _values(segment: str, counts: np.ndarray) -> np.ndarray:
    names = np.array([*value_names(segment), UNKNOWN], object)
    return names[np.searchsorted(SEGMENTS[segment], counts, side="right") - 1]


def _landed_before(column: str, predictions: pa.Table, impressions: pa.Table) -> np.ndarray:
    """Return how many impressions with the prediction's id in `column` landed on a day before its own."""
    wanted, landed = _keys(column, predictions, impressions)
    landed.sort()
    start_of_id = wanted >> _DAY_BITS << _DAY_BITS
    return np.searchsorted(landed, wanted) - np.searchsorted(landed, start_of_id)


def _history_lengths(predictions: pa.Table, first: date, last: date, config: Config) -> np.ndarray:
    """Return how many behaviors could be read before each impression, at most S per feature; -1 where unknown."""
    impressions = read_table(
        config.tables_dir,
        "impressions",
        columns=["dt", "impression_id", "sequence_ends"],
        partitions=f"dt >= '{first}' AND dt <= '{last}'",
    )
    lengths = _readable_behaviors(impressions["sequence_ends"], config.sequences)
    wanted, landed = _keys("impression_id", predictions, impressions)
    order = np.argsort(landed)
    place = np.searchsorted(landed[order], wanted)
    found = np.append(landed[order], -1)[place] == wanted
    return np.where(found, np.append(lengths[order], -1)[place], -1)


def _readable_behaviors(ends: pa.ChunkedArray, sequences: SequencesConfig) -> np.ndarray:
    """Return sum over text features of min(end, S): the model reads [max(0, end - S), end) of each sequence."""
    maps = ends.combine_chunks()
    offsets = np.asarray(maps.offsets)
    numbers = np.asarray(maps.items.fill_null(0), dtype=np.int64)[offsets[0] : offsets[-1]]
    features = maps.keys.dictionary_encode()
    most_of = np.array([sequences.behaviors_read(name) for name in features.dictionary.to_pylist()], np.int64)
    most = most_of[np.asarray(features.indices)[offsets[0] : offsets[-1]]]
    totals = np.concatenate([[0], np.cumsum(np.minimum(numbers, most))])
    return np.diff(totals[offsets - offsets[0]])


def _keys(column: str, one: pa.Table, other: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row of both tables that orders by id, then day; equal ids and days give equal numbers."""
    ids = pa.chunked_array([*one[column].chunks, *other[column].chunks], pa.string()).combine_chunks()
    codes = np.asarray(ids.dictionary_encode().indices, dtype=np.int64)
    days = np.concatenate([np.asarray(table["dt"], dtype="datetime64[D]").astype(np.int64) for table in (one, other)])
    keys = (codes << _DAY_BITS) + (days - days.min())
    return keys[: one.num_rows], keys[one.num_rows :]
