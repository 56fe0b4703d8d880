"""Point-in-time histories: `spark_jobs.build_sequences` without Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bahe_tasks.config import SequencesConfig
from bahe_tasks.key_sums import DAY_US
from spark_jobs.arrow_columns import floats, lists, maps, micros, numbered, runs, whole

EVENT_COLUMNS = ("dt", "user_id", "feature", "occurred_at", "behavior_key", "value", "item_id")


def build_sequences(
    events: pa.Table, impressions: pa.Table, *, sequences: SequencesConfig
) -> tuple[pa.Table, pa.MapArray]:
    """Return the sequences, with the number of `capped` behaviors, and the column sequence_ends of the impressions.

    `events`: EVENT_COLUMNS of the rows that may be read, of the impressions' users at least.
    """
    users, names = numbered(pa.concat_arrays([whole(t["user_id"]) for t in (impressions, events)]))
    users, of_event = np.split(users, [len(impressions)])
    as_of = micros(impressions["shown_at"])
    if sequences.history_as_of == "day_start":
        as_of = as_of - np.mod(as_of, DAY_US)
    first, last = np.full((2, len(names)), np.iinfo(np.int64).max)
    last[:] = np.iinfo(np.int64).min
    np.minimum.at(first, users, as_of)
    np.maximum.at(last, users, as_of)
    events = events.filter(pa.array(micros(events["occurred_at"]) < last[of_event]))
    user, feature, occurred_us, at, features = _in_order(events, names)
    begins = runs(user, feature)
    group = np.cumsum(begins) - 1
    sizes = np.bincount(group, minlength=0)
    num_before = np.bincount(group, weights=occurred_us < first[user], minlength=len(sizes)).astype(np.int64)
    wanted = sizes - np.maximum(num_before - sequences.max_behaviors_per_sequence, 0)
    kept = np.minimum(wanted, sequences.max_events_per_sequence)
    from_end = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(group))  # 1 for the newest
    is_kept = from_end <= kept[group]
    rows = events.take(pa.array(at[is_kept]))
    table = pa.table(
        {
            "user_id": pa.array([names[u] for u in user[begins]], pa.string()),
            "feature": pa.array([features[f] for f in feature[begins]], pa.string()),
            "behavior_keys": lists(whole(rows["behavior_key"]), kept),
            "occurred_at": lists(whole(rows["occurred_at"]), kept),
            "values": lists(whole(rows["value"]), kept),
            "capped": pa.array(wanted - kept),
        }
    )
    return table, _ends(users, as_of, user[begins], table["feature"], occurred_us[is_kept], kept)


def _in_order(events: pa.Table, users: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return user, feature, time and place of each distinct event, oldest first within user and feature; and the features."""
    number_of = {name: n for n, name in enumerate(users)}
    user = np.array([number_of[name] for name in events["user_id"].to_pylist()], np.int64)
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
