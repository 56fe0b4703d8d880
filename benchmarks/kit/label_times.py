"""When the labels of a log's impressions come in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bahe_tasks.config import LandingConfig
from bahe_tasks.key_sums import DAY_US

NEVER = np.datetime64("9999-12-31", "D")


@dataclass(frozen=True)
class LabelTimes:
    """When labels of R impressions come in, where that is later than shown."""

    counted_us: np.ndarray
    """(R,) int64 µs since 1970, when a label is known, by the log's word; it fades from then on."""
    known_at: np.ndarray
    """(R,) int64, from when on it is there to be read: then too, but not before the day it landed on; `NEVER` if too late."""
    train_days: np.ndarray
    """(R,) datetime64[D], the day whose run counts it and trains on it; `NEVER` if too late."""
    is_late: np.ndarray
    """(R,) bool: landed later than shown, trained on but neither asked for numbers nor scored."""

    def part(self, part: slice) -> LabelTimes:
        """Return those of some of the impressions."""
        return LabelTimes(*(of[part] for of in vars(self).values()))


def label_times_of(impressions: pd.DataFrame, landing: LandingConfig) -> LabelTimes | None:
    """Return when the labels of impressions come in, None where each does when shown."""
    shown, landed_from = (impressions[name].to_numpy(np.int64) for name in ("shown_at", "landed_from"))
    known = impressions["label_known_at"].to_numpy(np.float64)
    delayed = shown + landing.label_delay_s * 1_000_000
    counted_us = np.maximum(np.where(np.isnan(known), delayed, np.nan_to_num(known).astype(np.int64)), shown)
    is_late = landed_from > shown
    if not is_late.any() and (counted_us == shown).all():
        return None
    known_at = np.maximum(counted_us, landed_from)
    is_never = (known_at - landed_from) // DAY_US > landing.label_horizon_days
    known_at = np.where(is_never, NEVER.astype("datetime64[us]").astype(np.int64), known_at)
    return LabelTimes(counted_us, known_at, day_of(known_at), is_late)


def day_of(time_us: np.ndarray) -> np.ndarray:
    """Return the day of each time (µs since 1970), datetime64[D]."""
    return np.asarray(time_us).astype("datetime64[us]").astype("datetime64[D]")
