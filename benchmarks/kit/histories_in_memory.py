"""Histories of the impressions of a log in memory, of events that may land later than they happened."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bahe_tasks.core.training_rows import Histories


def histories_of(events: pd.DataFrame, impressions: pd.DataFrame, row_of: pd.Index, *, max_behaviors: int) -> Histories:
    """Return each impression's newest behaviors before it, of events that landed on its day or before.

    `events` of one feature, in order of user_id, occurred_at, text; `row_of`: text → row of the embeddings. A user's events
    that are read are written once, and again for each day on which some landed late.
    """
    users, event_user = np.unique(events["user_id"].to_numpy(object), return_inverse=True)
    times, landed_from = (events[name].to_numpy(np.int64) for name in ("occurred_at", "landed_from"))
    texts = row_of.get_indexer(pd.Index(events["text"])).astype(np.int64)
    bounds = np.searchsorted(event_user.reshape(-1), np.arange(len(users) + 1))
    is_late = landed_from > times
    shown, dt_us = (impressions[name].to_numpy(np.int64) for name in ("shown_at", "landed_from"))
    starts, ends = np.zeros((2, len(impressions)), np.int64)
    written: list[np.ndarray] = [np.zeros(0, np.int64)]  # places of events
    num_written = 0
    by_user = impressions.groupby("user_id").indices
    for user, first, last in zip(users, bounds, bounds[1:], strict=False):
        rows = by_user.get(user, np.zeros(0, np.int64))
        late = is_late[first:last]
        late_days = np.unique(landed_from[first:last][late])
        version = np.searchsorted(late_days, dt_us[rows], side="right")
        for number in np.unique(version):
            known = ~late if number == 0 else ~late | (landed_from[first:last] <= late_days[number - 1])
            places, asking = first + np.flatnonzero(known), rows[version == number]
            end = np.searchsorted(times[places], shown[asking])
            start = np.maximum(0, end - max_behaviors)
            starts[asking], ends[asking] = (num_written - start.min() + of for of in (start, end))
            written.append(places[start.min() : end.max()])
            num_written += len(written[-1])
    order = np.concatenate(written)
    return Histories(texts[order], times[order], starts, ends)
