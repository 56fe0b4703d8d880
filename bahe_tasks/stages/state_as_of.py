"""The running sums as they stand at the end of a day: found in the table, picked for publishing, read by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.base_rate import BaseRate
from bahe_tasks.config import Config
from bahe_tasks.data_interval import end_of
from bahe_tasks.running_sums import (
    BASE_HALF_LIFE_DAYS,
    HALF_LIVES,
    KEY_OF_ALL,
    STATISTICS,
    state_key,
    state_width,
    title_tokens,
)
from bahe_tasks.stages.days_in_force import excluded_days
from bahe_tasks.state_cover import state_cover
from bahe_tasks.stored_sums import OtherSumsError, stored_sums
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.partition_records import partition_records


def state_days(day: date, config: Config) -> tuple[date, ...]:
    """Return the partitions of running_sums that hold the state at the end of `day`, newest first."""
    recorded = [date.fromisoformat(dt) for dt in partition_records(config.tables_dir, "running_sums")]
    return state_cover(day + timedelta(days=1), recorded=recorded, excluded=excluded_days(config))


def active_state(
    users: Sequence[str], items: Sequence[str], titles: Sequence[str], day: date, config: Config
) -> pa.Table:
    """Return the newest row of users and their pairs, items, tokens of the titles, categorical values, and the log, at the end of `day`.

    Values count that were met in the last `publish_days`.
    """
    owners = [state_key("user", user) for user in users]
    keys = [
        KEY_OF_ALL,
        state_key("log"),
        *owners,
        *(state_key("item", item) for item in items),
        *(state_key("token", token) for token in {token for title in titles for token in title_tokens(title)}),
    ]
    first = day - timedelta(days=config.publish.publish_days - 1)
    is_cat = (pc.field("scope") == "cat") & (pc.field("updated") >= pa.scalar(first))
    is_key, is_owned = (
        pc.field(name).isin(pa.array(of, pa.int64())) for name, of in (("key", keys), ("owner", owners))
    )
    cover = state_days(day, config)
    dates = ", ".join(f"'{d}'" for d in cover)
    rows = read_table(
        config.tables_dir,
        "running_sums",
        partitions=f"dt IN ({dates})" if cover else "false",
        filters=is_key | is_owned | is_cat,
    ).sort_by([("scope", "ascending"), ("key", "ascending"), ("updated", "ascending"), ("dt", "ascending")])
    of_key = rows.select(["scope", "key"]).to_pandas()
    return rows.filter(pa.array(~of_key.duplicated(keep="last").to_numpy())).drop_columns(["dt"])


@dataclass(frozen=True)
class StateAsOf:
    """Rows of the state, sums faded to the end of `day`; a key is of one scope alone."""

    rows: pa.Table
    day: date

    def base_rate(self) -> BaseRate:
        """Return the share of clicks in the log at the end of the day. Raises `OtherSumsError`."""
        log = self.rows.filter(pc.equal(self.rows["key"], KEY_OF_ALL)).to_pylist()
        if self.rows.num_rows and not log:
            raise OtherSumsError("other numbers of users, items and words")
        facts = clicks = 0.0
        for row in log:
            fade = 0.5 ** ((self.day - row["updated"]).days / BASE_HALF_LIFE_DAYS)
            facts, clicks = facts + fade * row["sums"][0], clicks + fade * row["sums"][1]
        return BaseRate.before(clicks, facts, np.zeros(0, np.int64), np.zeros(0))

    def of_keys(self, scope: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sums (K, state_width), seconds since last and since first shown (K,) of keys (K,) int64 of a scope.

        A key without a row has zeros and NaN.
        """
        rows = self.rows.filter(pc.equal(self.rows["scope"], scope))
        width, days = state_width(scope), np.asarray(rows["updated"], "datetime64[D]")
        age_days = (np.datetime64(self.day) - days).astype(float)
        half_lives = np.tile([half_life.days for half_life in HALF_LIVES[scope]], len(STATISTICS[scope]))
        sums = stored_sums(rows["sums"], width) * np.exp2(-age_days[:, None] / half_lives)
        times = [self._seconds_since(rows[name]) for name in ("last_at", "first_at")]
        found = pd.Index(np.asarray(rows["key"], np.int64)).get_indexer(pd.Index(keys))  # -1 is the last row, of nobody
        gap_s, age_s = (np.append(time, np.nan)[found] for time in times)
        return np.concatenate([sums, np.zeros((1, width))])[found], gap_s, age_s

    def _seconds_since(self, column: pa.ChunkedArray) -> np.ndarray:
        micros = column.cast(pa.int64()).to_pandas().to_numpy(dtype=float)  # null is NaN
        return np.asarray((end_of(self.day).timestamp() * 1e6 - micros) / 1e6)
