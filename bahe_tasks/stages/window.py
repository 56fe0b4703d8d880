"""The impressions a run of a day may look at: what it trains on, what it is judged by, what it scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import Config
from bahe_tasks.stages.days_in_force import first_impression_day, readable_partitions
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table


@dataclass(frozen=True)
class Window:
    """R impressions a run of D may look at; arrays and masks are in order of (shown_at, impression_id).

    `partitions` is the condition on dt (SQL) of the days it holds. `train_date` is the day whose run trains on a row: the
    day its label is usable, gate.gate_days later if held out. Rows stay as they were read, in `table`, and nobody holds them a
    second time in order. Their running sums, most of what is stored of them, are left to `mapped_window`.
    """

    day: date
    training_days: tuple[date, ...]
    partitions: str
    table: pa.Table
    users: pd.Index  # the distinct user ids of `table`
    order: np.ndarray  # (R,) int64, where the rows are in `table`
    landed: np.ndarray  # (R,) dates, as all that follow
    is_late: np.ndarray
    held_out: np.ndarray
    label_date: np.ndarray
    train_date: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def columns(self, names: Sequence[str], mask: np.ndarray) -> pa.Table:
        """Return some columns of the masked rows, in order."""
        return self.table.select(list(names)).take(pa.array(self.order[mask]))

    def of_day(self) -> np.ndarray:
        """Mask of the rows that are scored progressively: landed on D and shown on D."""
        return (self.landed == np.datetime64(self.day)) & ~self.is_late

    def training(self) -> np.ndarray:
        """Mask of the rows trained on at D."""
        return np.isin(self.train_date, np.array(self.training_days, "datetime64[D]"))

    def gate(self, gate_days: int) -> np.ndarray:
        """Mask of the held-out rows that judge the model of D.

        While a lineage keeps its gate settings, no model up to D was trained on one of them.
        """
        age = (np.datetime64(self.day) - self.label_date).astype(int)
        return self.held_out & (age >= 0) & (age < gate_days)

    def used(self, config: Config) -> np.ndarray:
        """Mask of the rows that some stage of D reads: one for all of them, so that they share what is made of it."""
        return self.of_day() | self.training() | self.gate(config.gate.gate_days)


def is_held_out(user_id: str, day: date, share: float) -> bool:
    """Return whether the user's impressions of the day are held out: hash(user_id, D) < share (DESIGN)."""
    digest = hashlib.sha256(f"{user_id}\x00{day}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def user_days(table: pa.Table | pa.RecordBatch, users: pd.Index) -> np.ndarray:
    """Return one number for the (dt, user_id) of each row, (K,) int64: days since 1970 · len(users) + place in `users`.

    Rows of other users have -1.
    """
    ids = table["user_id"]
    coded = ids.dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    places = users.get_indexer(coded.dictionary)[np.asarray(coded.indices)]
    days = np.asarray(table["dt"], "datetime64[D]").astype(np.int64)
    return np.where(places < 0, -1, days * len(users) + places)


def read_window(day: date, config: Config, training_days: Sequence[date]) -> Window:
    """Read what a run of D that trains on these days, oldest first, may train on or judge by; `excluded_days` are left out."""
    tables_dir, first = config.tables_dir, first_impression_day(training_days[0], config)
    days = readable_partitions(first, day, config)
    columns = [name for name in arrow_schema("impressions").names if name != "sums"]
    table = _with_coded_ids(read_table(tables_dir, "impressions", columns=columns, partitions=days))
    users = pd.Index(pc.unique(table["user_id"]).cast(pa.string()).to_pandas())
    keys = ("shown_at", "impression_id", "dt")
    order = pc.sort_indices(table.select(keys), sort_keys=[(name, "ascending") for name in keys])
    rows = table.select(["dt", "label_date", "is_late", "user_id"]).take(order)
    landed = np.asarray(rows["dt"], dtype="datetime64[D]")
    label_date = np.asarray(rows["label_date"], dtype="datetime64[D]")
    late = np.asarray(rows["is_late"])
    held_out = _held_out(rows, users, config.gate.held_out_share) & ~late
    train_date = label_date + np.where(held_out, config.gate.gate_days, 0).astype("timedelta64[D]")
    unusable = (label_date - landed).astype(int) > config.landing.label_horizon_days
    train_date[unusable] = label_date[unusable] = np.datetime64(day + timedelta(days=1))
    return Window(
        day=day,
        training_days=tuple(training_days),
        partitions=days,
        table=table,
        users=users,
        order=np.asarray(order, np.int64),
        landed=landed,
        is_late=late,
        held_out=held_out,
        label_date=label_date,
        train_date=train_date,
    )


def _held_out(rows: pa.Table, users: pd.Index, share: float) -> np.ndarray:
    """Return whether each row's user is held out on its day, bool."""
    pair_of_row, pairs = pd.factorize(user_days(rows, users))
    days, places = np.divmod(pairs, len(users))
    of_pairs = zip(users[places], days.astype("datetime64[D]").tolist(), strict=True)
    return np.array([is_held_out(user, day, share) for user, day in of_pairs], bool)[pair_of_row]


def _with_coded_ids(table: pa.Table) -> pa.Table:
    """Return the rows with user and item ids as numbers of a dictionary, which are quick to put in order and to compare."""
    for name in ("user_id", "item_id"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    return table
