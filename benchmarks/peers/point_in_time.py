"""Numbers about an impression's user, item and both that were known before it was shown, as peers read them.

Those of the pipeline (`core.point_in_time`) and others that are usual: means over the newest impressions, rates of each
`cat_*` value and of the user on it, lengths of histories, `num_*` columns. Every sum is over labels known strictly before
`shown_at`, or the start of its day where the log's own numbers are (`numbers_as_of`). Until a label is counted the base rate is
one half here; BAHE takes that of the rows its lineage began with.
"""

from __future__ import annotations

import numpy as np

from bahe_tasks.core.point_in_time import NUMBERS, point_in_time_numbers
from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.peers.means import smoothed, sums_before

_NEWEST = 10
_SECOND_US = 1_000_000


def numbers_of(log: InMemoryLog) -> tuple[np.ndarray, list[str]]:
    """Return all numbers of the impressions, (R, K) float32 with NaN = absent, and their K names."""
    own, names = usual_numbers(log)
    if log.rows.sums is None:
        return own, names
    return np.concatenate([own, point_in_time_numbers(log.rows.sums)], 1), [*names, *NUMBERS]


def usual_numbers(log: InMemoryLog) -> tuple[np.ndarray, list[str]]:
    """Return the numbers that need no running sums, (R, K) float32 with NaN = absent, and their K names."""
    rows = log.rows
    times, labels = log.counted_at, rows.labels.astype(np.float64)
    everywhere = np.zeros(len(rows), np.int64)
    half = np.full(len(rows), 0.5)
    known = log.known_at
    asks = np.ones(len(rows), bool) if log.label_times is None else ~log.label_times.is_late
    base = smoothed(sums_before(everywhere, labels, times, known=known), half, weight=2.0)
    keys: dict[str, np.ndarray] = {"user": rows.user_ids, "item": rows.item_ids}
    for name, column in rows.cat.items():
        keys[name] = column
        keys[f"user_{name}"] = np.array([f"{u}\n{c}" for u, c in zip(rows.user_ids, column, strict=True)], object)
    codes = {name: np.unique([str(v) for v in key], return_inverse=True)[1] for name, key in keys.items()}
    found: dict[str, np.ndarray] = {"base": base}
    for name, of_row in codes.items():
        sums = sums_before(of_row, labels, times, known=known)
        found[f"{name}_count"] = sums.counts
        found[f"{name}_mean"] = smoothed(sums, base, weight=4.0)
    for name in ("user", "item"):
        newest = sums_before(codes[name], labels, times, known=known, newest=_NEWEST)
        found[f"{name}_newest_mean"] = smoothed(newest, base, weight=1.0)
        found[f"{name}_seconds_since_last"] = _seconds_since(codes[name], log, asks, newest=1)
        found[f"{name}_seconds_of_newest"] = _seconds_since(codes[name], log, asks, newest=_NEWEST)
    zero = np.zeros(len(rows))
    for name, of_other in (("item", "user"), ("user", "item")):
        surprise = labels - found[f"{of_other}_mean"]
        found[f"{name}_surprise"] = smoothed(sums_before(codes[name], surprise, times, known=known), zero, weight=2.0)
    for name, column in rows.num.items():
        found[f"num_{name}"] = column
    for feature, history in sorted(rows.histories.items()):
        found[f"{feature}_length"] = (history.ends - history.starts).astype(np.float64)
    return np.stack(list(found.values()), axis=1).astype(np.float32), list(found)


def _seconds_since(ids: np.ndarray, log: InMemoryLog, asks: np.ndarray, *, newest: int) -> np.ndarray:
    """Return the mean age of the newest earlier rows of the same id among those that ask, NaN where there is none, and for the others."""
    found = np.full(len(ids), np.nan)
    ids, shown, times = ids[asks], log.rows.shown_at[asks], log.counted_at[asks]
    seconds = (shown - shown[:1]) / _SECOND_US
    sums = sums_before(ids, seconds, times, known=shown, newest=newest)
    with np.errstate(invalid="ignore", divide="ignore"):
        now = (times - shown[:1]) / _SECOND_US
        found[asks] = np.where(sums.counts > 0, now - sums.totals / sums.counts, np.nan)
    return found
