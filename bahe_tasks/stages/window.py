"""The impressions a run of a day may look at: what it trains on, what it is judged by, what it scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from bahe_tasks.config import Config
from bahe_tasks.stages.days_in_force import first_impression_day, readable_partitions
from bahe_tasks.stores.delta_tables import read_table


@dataclass(frozen=True)
class Window:
    """Impressions a run of D may look at, sorted by (shown_at, impression_id).

    `partitions` is the condition on dt (SQL) of the days it holds. `train_date` is the day whose run trains on a row: the
    day its label is usable, gate.gate_days later if held out.
    """

    day: date
    partitions: str
    impressions: pa.Table
    held_out: np.ndarray
    label_date: np.ndarray
    train_date: np.ndarray

    def of_day(self) -> np.ndarray:
        """Mask of the rows that are scored progressively: landed on D and shown on D."""
        landed = np.asarray(self.impressions["dt"], dtype="datetime64[D]") == np.datetime64(self.day)
        return landed & ~np.asarray(self.impressions["is_late"])

    def training(self, window_days: int) -> np.ndarray:
        """Mask of the rows trained on at D."""
        age = (np.datetime64(self.day) - self.train_date).astype(int)
        return (age >= 0) & (age < window_days)

    def gate(self, gate_days: int) -> np.ndarray:
        """Mask of the held-out rows that judge the model of D: no model up to D was trained on one of them."""
        age = (np.datetime64(self.day) - self.label_date).astype(int)
        return self.held_out & (age >= 0) & (age < gate_days)

    def used(self, config: Config) -> np.ndarray:
        """Mask of the rows that some stage of D reads: one for all of them, so that they share what is made of it."""
        return self.of_day() | self.training(config.training.window_days) | self.gate(config.gate.gate_days)


def is_held_out(user_id: str, day: date, share: float) -> bool:
    """Return whether the user's impressions of the day are held out: hash(user_id, D) < share (DESIGN)."""
    digest = hashlib.sha256(f"{user_id}\x00{day}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def days_and_users(table: pa.Table | pa.RecordBatch) -> pd.MultiIndex:
    """Return the pair (dt, user_id) of each row."""
    return pd.MultiIndex.from_arrays([table["dt"].to_pandas(), table["user_id"].to_pandas()])


def read_window(day: date, config: Config) -> Window:
    """Read what a run of D may train on or judge by; refused days are left out."""
    tables_dir, first = config.tables_dir, first_impression_day(day, config)
    days = readable_partitions(first, day, config)
    impressions = read_table(tables_dir, "impressions", partitions=days)
    impressions = impressions.sort_by([("shown_at", "ascending"), ("impression_id", "ascending"), ("dt", "ascending")])
    landed = np.asarray(impressions["dt"], dtype="datetime64[D]")
    label_date = np.asarray(impressions["label_date"], dtype="datetime64[D]")
    late = np.asarray(impressions["is_late"])
    of_rows = days_and_users(impressions)
    pairs = of_rows.unique()
    held = [is_held_out(user, landed_on, config.gate.held_out_share) for landed_on, user in pairs]
    held_out = np.array(held, bool)[pairs.get_indexer(of_rows)] & ~late
    train_date = label_date + np.where(held_out, config.gate.gate_days, 0).astype("timedelta64[D]")
    unusable = (label_date - landed).astype(int) > config.landing.label_horizon_days
    train_date[unusable] = label_date[unusable] = np.datetime64(day + timedelta(days=1))
    return Window(
        day=day,
        partitions=days,
        impressions=impressions,
        held_out=held_out,
        label_date=label_date,
        train_date=train_date,
    )
