"""Outcome values: how much an impression led to, where the log says so (a rating given, an amount paid, seconds stayed).

An event that the user has about the item from shown_at on, landed the same day, says more than the label's one bit. It is
learnt beside the click (`core.columns`) and never read. numpy alone: Spark's tasks and benchmarks share it.
"""

from __future__ import annotations

import numpy as np

from bahe_tasks.key_sums import DAY_US


def outcome_values(
    pair_of_shown: np.ndarray,
    shown_us: np.ndarray,
    pair_of_event: np.ndarray,
    happened_us: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Return the value of the first event of an impression's pair at or after it was shown, (R,) float64, NaN = none.

    Pairs of user and item are numbers (R,) and (E,) from 0 on, times microseconds since the start of one day; what
    is outside that day has no outcome and is none. Of events of one time the largest value counts. NaN is no value.
    """
    counts = ~np.isnan(values) & (happened_us >= 0) & (happened_us < DAY_US)
    order = np.lexsort((-values[counts], happened_us[counts], pair_of_event[counts]))
    pair, value = pair_of_event[counts][order], values[counts][order]
    at = np.searchsorted(pair * DAY_US + happened_us[counts][order], pair_of_shown * DAY_US + shown_us)
    found = np.full(len(shown_us), np.nan)
    candidate = np.flatnonzero((at < len(pair)) & (shown_us >= 0) & (shown_us < DAY_US))
    same = candidate[pair[at[candidate]] == pair_of_shown[candidate]]
    found[same] = value[at[same]]
    return found
