"""Point-in-time histories: the sequences of a day's users, and where in them each impression stands (PAPER.md, step 3).

One sequence serves all of a user's impressions of the day. It holds the newest S events before the first of them and
everything from there up to the last; each impression stores the exclusive end of what had happened when it was shown,
or, with `history_as_of: day_start`, at the start of its day.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import SequencesConfig
from bahe_tasks.key_sums import DAY_US
from spark_jobs.arrow_columns import floats, lists, maps, micros, numbered, runs, whole
from spark_jobs.derived.steps import condensed

EVENT_COLUMNS = ("dt", "user_id", "feature", "occurred_at", "behavior_key", "value", "item_id")
_ROWS_HELD = 1_000_000
"""Events, some hundred bytes each, of which those that no sequence needs are dropped."""


class _Histories(NamedTuple):
    """Distinct events before the last of their user's impressions, by user and feature, oldest first."""

    user: np.ndarray  # (E,) int64, place among the names of the users
    feature: np.ndarray  # (E,) int64, place among `features`
    occurred_us: np.ndarray  # (E,) int64
    rows: pa.Table  # the E events
    features: list[str]
    begins: np.ndarray  # (E,) bool, whether a user and feature begins here
    from_end: np.ndarray  # (E,) int64, 1 for the newest of a user and feature
    wanted: np.ndarray  # (user and feature,) int64, how many of the newest some impression reads

    @property
    def group(self) -> np.ndarray:
        """Which user and feature an event is of, (E,) int64."""
        return np.cumsum(self.begins) - 1


def build_sequences(
    events: pa.Table, impressions: pa.Table, *, sequences: SequencesConfig
) -> tuple[pa.Table, pa.MapArray]:
    """Return the sequences, with the number of `capped` behaviors, and the column sequence_ends of the impressions.

    `events`: EVENT_COLUMNS of the rows that may be read, of the impressions' users at least; one that landed on two days
    counts once. Ties in time are broken by behavior_key, value, item_id. Of a sequence of more than max_events_per_sequence
    those are left out that no impression reads, then of what each impression reads the oldest.
    """
    users, as_of, names = _readers(impressions, sequences)
    found = _histories(events, users, as_of, names, sequences)
    is_kept, kept, capped = _capped(found, users, as_of, sequences)
    rows = found.rows.filter(pa.array(is_kept))
    table = pa.table(
        {
            "user_id": pa.array([names[u] for u in found.user[found.begins]], pa.string()),
            "feature": pa.array([found.features[f] for f in found.feature[found.begins]], pa.string()),
            "behavior_keys": lists(whole(rows["behavior_key"]), kept),
            "occurred_at": lists(whole(rows["occurred_at"]), kept),
            "values": lists(whole(rows["value"]), kept),
            "capped": pa.array(capped),
        }
    )
    return table, _ends(users, as_of, found.user[found.begins], table["feature"], found.occurred_us[is_kept], kept)


def events_read(
    parts: Iterable[pa.Table], impressions: pa.Table, *, sequences: SequencesConfig, rows_held: int = _ROWS_HELD
) -> pa.Table:
    """Return a part of the events in `parts` that gives the same sequences of the impressions as all of them.

    Of a long history the newest are enough.
    """
    readers = _readers(impressions, sequences)

    def newest(events: pa.Table) -> pa.Table:
        found = _histories(events, *readers, sequences)
        return found.rows.filter(pa.array(found.from_end <= found.wanted[found.group]))

    return condensed(parts, newest, rows_held=rows_held)


def _readers(impressions: pa.Table, sequences: SequencesConfig) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return user of each impression, the time its history ends, and the names of the users."""
    users, names = numbered(impressions["user_id"])
    as_of = micros(impressions["shown_at"])
    if sequences.history_as_of == "day_start":
        as_of = as_of - np.mod(as_of, DAY_US)
    return users, as_of, names


def _histories(
    events: pa.Table, users: np.ndarray, as_of: np.ndarray, names: list[str], sequences: SequencesConfig
) -> _Histories:
    first, last = np.full((2, len(names)), np.iinfo(np.int64).max)
    last[:] = np.iinfo(np.int64).min
    np.minimum.at(first, users, as_of)
    np.maximum.at(last, users, as_of)
    of_event = pc.fill_null(pc.index_in(whole(events["user_id"]), pa.array(names, pa.string())), -1)
    of_event = np.asarray(of_event, np.int64)
    is_read = micros(events["occurred_at"]) < np.append(last, np.iinfo(np.int64).min)[of_event]
    events = events.filter(pa.array(is_read))
    user, feature, occurred_us, at, features = _in_order(events, of_event[is_read])
    begins = runs(user, feature)
    group = np.cumsum(begins) - 1
    sizes = np.bincount(group, minlength=0)
    num_before = np.bincount(group, weights=occurred_us < first[user], minlength=len(sizes)).astype(np.int64)
    return _Histories(
        user,
        feature,
        occurred_us,
        events.take(pa.array(at)),
        features,
        begins,
        from_end=np.repeat(np.cumsum(sizes), sizes) - np.arange(len(group)),
        wanted=sizes - np.maximum(num_before - sequences.max_behaviors_per_sequence, 0),
    )


def _capped(
    found: _Histories, users: np.ndarray, as_of: np.ndarray, sequences: SequencesConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which events a sequence keeps (E,) bool, and of each how many it keeps and how many it lacks, int64.

    What a user does after an impression must not cost it its history: what nobody reads goes first, and of the rest each
    impression keeps its newest, as many of them as there is room for.
    """
    group, most = found.group, sequences.max_events_per_sequence
    is_kept = found.from_end <= found.wanted[group]
    too_long = np.flatnonzero(found.wanted > most)
    if not len(too_long):
        return is_kept, found.wanted, np.zeros_like(found.wanted)
    kept, capped = found.wanted.copy(), np.zeros_like(found.wanted)
    stops = np.append(np.flatnonzero(found.begins), len(group))[1:]
    by_user = np.argsort(users, kind="stable")
    in_order = users[by_user]
    for place in too_long.tolist():
        stop = int(stops[place])
        start = stop - int(found.wanted[place])
        mine = slice(*np.searchsorted(in_order, [found.user[start], found.user[start] + 1]))
        ends = np.searchsorted(found.occurred_us[start:stop], as_of[by_user[mine]])
        is_stored = _within(most, ends, stop - start, max_behaviors=sequences.max_behaviors_per_sequence)
        is_kept[start:stop], kept[place] = is_stored, is_stored.sum()
        capped[place] = _newest_of_each(sequences.max_behaviors_per_sequence, ends, stop - start).sum() - kept[place]
    return is_kept, kept, capped


def _within(most: int, ends: np.ndarray, size: int, *, max_behaviors: int) -> np.ndarray:
    """Return which of `size` events (size,) bool, at most `most`, serve histories that end at `ends` best, max_behaviors each.

    All histories keep as many of their newest events; what room is left then goes to the newest of the next older ones.
    """

    def too_many(newest: int) -> bool:
        return int(_newest_of_each(newest, ends, size).sum()) > most

    fitting = bisect_left(range(1, max_behaviors + 1), True, key=too_many)
    is_stored = _newest_of_each(fitting, ends, size)
    if fitting < max_behaviors:
        older = np.flatnonzero(_newest_of_each(fitting + 1, ends, size) & ~is_stored)
        room = most - int(is_stored.sum())
        is_stored[older[len(older) - room :]] = True
    return is_stored


def _newest_of_each(newest: int, ends: np.ndarray, size: int) -> np.ndarray:
    """Return which of `size` events (size,) bool are among the newest so many of a history that ends at one of `ends`."""
    nested = np.zeros(size + 1, np.int64)  # +1 where what is read of a history begins, -1 where it ends
    np.add.at(nested, np.maximum(ends - newest, 0), 1)
    np.add.at(nested, ends, -1)
    return np.cumsum(nested[:-1]) > 0


def _in_order(events: pa.Table, user: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return user, feature, time and place of each distinct event, oldest first within user and feature; and the features."""
    feature, features = numbered(events["feature"])
    occurred_us = micros(events["occurred_at"])
    key, _ = numbered(events["behavior_key"])
    value = np.nan_to_num(floats(events["value"]), nan=-np.inf)  # null comes first
    item, _ = numbered(events["item_id"])
    order = np.lexsort((item, value, key, occurred_us, feature, user))
    columns = [column[order] for column in (user, feature, occurred_us, key, value, item)]
    distinct = runs(*columns)  # one that landed on two days counts once
    user, feature, occurred_us = (column[distinct] for column in columns[:3])
    return user, feature, occurred_us, order[distinct], features


def _ends(
    users: np.ndarray,
    as_of: np.ndarray,
    group_user: np.ndarray,
    group_feature: pa.ChunkedArray,
    occurred_us: np.ndarray,
    lengths: np.ndarray,
) -> pa.MapArray:
    """Return for each impression, by feature, how many of its user's kept events happened before `as_of`; none is left out."""
    stops = np.cumsum(lengths)
    by_user = np.argsort(users, kind="stable")
    starts = np.searchsorted(users[by_user], group_user)
    ends = np.searchsorted(users[by_user], group_user, side="right")
    found: list[list[tuple[str, int]]] = [[] for _ in users]
    for name, start, end, stop, length in zip(
        group_feature.to_pylist(), starts, ends, stops.tolist(), lengths.tolist(), strict=True
    ):
        rows = by_user[start:end]
        counts = np.searchsorted(occurred_us[stop - length : stop], as_of[rows])
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            if count:
                found[row].append((name, count))
    entries = [entry for of_row in found for entry in of_row]
    return maps(
        pa.array([name for name, _ in entries], pa.string()),
        pa.array([count for _, count in entries], pa.int32()),
        np.array([len(of_row) for of_row in found], np.int64),
    )
