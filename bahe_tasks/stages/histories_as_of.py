"""Users' histories and items as they stand at the end of a day: what a published embedding is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import Config
from bahe_tasks.core.training_rows import Histories
from bahe_tasks.stages.days_in_force import readable_partitions
from bahe_tasks.stages.embedding_index import EmbeddingIndex
from bahe_tasks.stores.delta_tables import read_table, scan_table
from spark_jobs.arrow_columns import numbered, repeated, runs
from spark_jobs.derived.look_up_items import VERSION_COLUMNS, VERSIONS, in_order, versions_read

_IDS = {"behavior_events": ["user_id", "item_id"], "impressions": ["user_id", "item_id"], "items": ["item_id"]}


@dataclass(frozen=True)
class HistoriesAsOf:
    """The newest S behaviors of P users per text feature, oldest first, ties by behavior_key.

    `events` is sorted by (feature, user, time, key) and holds those behaviors alone; `texts` is (behavior_key, text).
    """

    users: pd.Index
    events: pd.DataFrame

    @property
    def texts(self) -> pa.Table:
        distinct = self.events.drop_duplicates("behavior_key")
        return pa.table(
            {
                "behavior_key": pa.array(distinct["behavior_key"], pa.string()),
                "text": pa.array(distinct["text"], pa.string()),
            }
        )

    def histories(self, index: EmbeddingIndex) -> dict[str, Histories]:
        """Return the histories by text feature; row p belongs to user p."""
        return {str(feature): self._of_feature(events, index) for feature, events in self.events.groupby("feature")}

    def _of_feature(self, events: pd.DataFrame, index: EmbeddingIndex) -> Histories:
        lengths = np.bincount(self.users.get_indexer(pd.Index(events["user_id"])), minlength=len(self.users))
        ends = np.cumsum(lengths)
        return Histories(
            behavior_rows=index.rows_of(pa.chunked_array([pa.array(events["behavior_key"], pa.string())])),
            occurred_at=events["occurred_at"].dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64),
            starts=ends - lengths,
            ends=ends,
        )


def active_ids(first: date, last: date, config: Config) -> tuple[list[str], list[str]]:
    """Return the sorted users and items of events, impressions and rows of items with dt in [first, last]."""
    partitions = readable_partitions(first, last, config)
    found: dict[str, set[str]] = {"user_id": set(), "item_id": set()}
    for name, columns in _IDS.items():
        rows = read_table(config.tables_dir, name, columns=columns, partitions=partitions)
        for column in columns:
            found[column].update(pc.unique(rows[column]).drop_null().to_pylist())
    return sorted(found["user_id"]), sorted(found["item_id"])


def histories_as_of(users: Sequence[str], day: date, config: Config) -> HistoriesAsOf:
    """Return the users' histories at the end of `day`; `users` are sorted."""
    first = day - timedelta(days=config.sequences.history_days - 1)
    events = read_table(
        config.tables_dir,
        "behavior_events",
        columns=["user_id", "feature", "occurred_at", "behavior_key", "item_id", "value", "text"],
        partitions=readable_partitions(first, day, config),
        filters=pc.field("user_id").isin(pa.array(users, pa.string())),
    ).to_pandas()
    content = ["feature", "user_id", "occurred_at", "behavior_key", "value", "item_id"]
    events = events.sort_values(content, na_position="first")  # as `build_sequences` orders them
    events = events.drop_duplicates(content)  # delivered again on another day
    from_newest = events.groupby(["feature", "user_id"], sort=False).cumcount(ascending=False)
    read = events["feature"].map({name: config.sequences.behaviors_read(name) for name in events["feature"].unique()})
    return HistoriesAsOf(pd.Index(users), events[from_newest < read])


def newest_items(items: Sequence[str], day: date, config: Config) -> pa.Table:
    """Return the newest row with dt ≤ day of each of the items that has one, sorted by item_id."""
    rows = scan_table(
        config.tables_dir,
        "items",
        columns=VERSION_COLUMNS,
        partitions=readable_partitions(date.min, day, config),
        filters=pc.field("item_id").isin(pa.array(items, pa.string())),
    )
    end = repeated(day + timedelta(days=1), pa.date32(), len(items)).cast(pa.timestamp("us", "UTC"))
    asked = pa.table({"item_id": pa.array(items, pa.string()), "shown_at": end})
    newest = in_order(versions_read((pa.Table.from_batches([batch]).cast(VERSIONS) for batch in rows), asked))
    item, _ = numbered(newest["item_id"])
    order = np.argsort(item, kind="stable")
    return newest.take(pa.array(order[np.append(runs(item[order])[1:], True)[: len(order)]]))
