"""What is asked of a server on the day after a published one: the pairs of its impressions, and how long their users and items were idle.

Of the impressions that land on their own day, as progressive validation scores no other. A server knows what it shows: of an item that no
row had described by the evening before, the pairs tell title, `cat_*` and, once they hold, `num_*` of its first row of the day. Of any other
item they tell nothing: what was published of it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from bahe_tasks.key_sums import DAY_US
from benchmarks.kit.landed_log import TIMES, landed_frame

STRANGER = -1
"""In place of idle days: never seen before."""
SEEN_IN = {"user_id": ("impressions", "behavior_events"), "item_id": ("impressions", "behavior_events", "items")}
"""The sources whose rows are something a user did, or that was done about an item or said of it."""


@dataclass(frozen=True)
class LandedRows:
    """The good rows of a landing folder by source, frames of `landed_frame`; of impressions those that a home has."""

    of: dict[str, pd.DataFrame]

    @classmethod
    def read(cls, landing: Path, *, first: date, last: date, late_days: int) -> LandedRows:
        """Read what landed up to `last`, impressions from `first` on, as a home does whose first day that is."""
        of = {source: landed_frame(landing, source, late_days=late_days, last=last) for source in TIMES}
        impressions = of["impressions"]
        of["impressions"] = impressions[impressions["landed_from"] >= start_us(first)].reset_index(drop=True)
        return cls(of)

    def pairs_of(self, day: date, *, told: bool = True) -> pd.DataFrame:
        """Return impression_id, user_id, item_id, the `cat_*` and `num_*` columns and `title` of a day's impressions, ordered by id.

        Without `told` nothing is told of items but what stands in the impressions.
        """
        asked = self._asked_on(day)
        if not told:
            return asked.drop(columns="shown_at")
        items = self.of["items"]
        known = _rows_of(asked, self._first_rows(day))
        return _described(asked, known, columns=items.columns)

    def known_of(self, day: date) -> pd.DataFrame:
        """Return the rows of `pairs_of` with all that a server knows then: of items described before, as they were the evening before."""
        asked, items = self._asked_on(day), self.of["items"]
        before = items[items["landed_from"] < start_us(day)].sort_values(["updated_at", "landed_from"], kind="stable")
        newest = before.drop_duplicates("item_id", keep="last")
        known = _rows_of(asked, pd.concat([newest, self._first_rows(day)]))
        return _described(asked, known, columns=items.columns)

    def _asked_on(self, day: date) -> pd.DataFrame:
        impressions, start = self.of["impressions"], start_us(day)
        on_time = (impressions["landed_from"] == start) & (impressions["shown_at"] >= start)
        names = [name for name in impressions if str(name).startswith(("cat_", "num_"))]
        columns = ["impression_id", "user_id", "item_id", "shown_at", *names]
        return impressions.loc[on_time, columns].sort_values("impression_id").reset_index(drop=True)

    def _first_rows(self, day: date) -> pd.DataFrame:
        """Return the first row of each item that no row had described before the day."""
        items, start = self.of["items"], start_us(day)
        is_new = ~items["item_id"].isin(items["item_id"][items["landed_from"] < start])
        of_day = items[is_new & (items["landed_from"] == start)].sort_values("updated_at", kind="stable")
        return of_day.drop_duplicates("item_id")

    def idle_days(self, column: str, ids: pd.Series, day: date) -> np.ndarray:
        """Return the whole days before `day` for which nothing had landed of each user_id or item_id, 0 for one of the eve, `STRANGER`."""
        parts = [self.of[source][[column, "landed_from"]] for source in SEEN_IN[column]]
        earlier = pd.concat([part[part["landed_from"] < start_us(day)] for part in parts])
        newest = earlier.groupby(column)["landed_from"].max().reindex(ids).to_numpy(np.float64)
        return np.nan_to_num((start_us(day) - newest) / DAY_US - 1, nan=STRANGER).astype(np.int64)


def start_us(day: date) -> int:
    """Return the start of a day in µs since 1970."""
    return (day - date(1970, 1, 1)).days * DAY_US


def _rows_of(asked: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each impression's item, without numbers that do not hold yet; absent where it has none."""
    known = items.set_index("item_id").reindex(asked["item_id"]).reset_index(drop=True)
    numbers = [name for name in known if str(name).startswith("num_")]
    known.loc[~(known["updated_at"] <= asked["shown_at"]), numbers] = np.nan
    return known


def _described(asked: pd.DataFrame, known: pd.DataFrame, *, columns: pd.Index) -> pd.DataFrame:
    """Return impressions with the title and the columns of their items; an impression's own value counts more."""
    pairs = asked.drop(columns="shown_at").assign(title=known["title"])
    for name in (name for name in columns if name.startswith(("cat_", "num_"))):
        pairs[name] = pairs[name].where(pairs[name].notna(), known[name]) if name in pairs else known[name]
    return pairs
