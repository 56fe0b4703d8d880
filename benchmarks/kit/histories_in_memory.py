"""Histories of the impressions of a log in memory: each day's by the step of the pipeline that builds its sequences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import SequencesConfig
from bahe_tasks.core.training_rows import Histories
from bahe_tasks.key_sums import DAY_US
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import entries, micros, whole
from spark_jobs.derived.build_sequences import EVENT_COLUMNS, build_sequences

_TIME = pa.timestamp("us", "UTC")


def histories_of(
    events: pd.DataFrame, impressions: pd.DataFrame, row_of: pd.Index, sequences: SequencesConfig
) -> dict[str, Histories]:
    """Return by text feature each impression's newest behaviors, of events that landed on the days `SequencesConfig.landed_days` says.

    Frames of `landed_frame`; `row_of`: text → row of the embeddings. A user's behaviors are written anew for each day, as in the
    table user_sequences.
    """
    events = events.sort_values("landed_from", kind="stable")
    landed_from, table = events["landed_from"].to_numpy(np.int64), _table_of(events)
    texts = events.drop_duplicates("behavior_key")
    keys, row_of_key = pa.array(texts["behavior_key"], pa.string()), row_of.get_indexer(pd.Index(texts["text"]))
    bounds = {str(name): np.zeros((2, len(impressions)), np.int64) for name in sorted(events["feature"].unique())}
    behavior_rows, occurred_at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    written = 0
    dts = impressions["landed_from"].to_numpy(np.int64)
    for dt_us in np.unique(dts):
        rows = np.flatnonzero(dts == dt_us)
        newest = dt_us if sequences.history_as_of == "impression" else dt_us - DAY_US
        oldest = newest - sequences.history_days * DAY_US
        first, end = np.searchsorted(landed_from, [oldest, newest], side="right")
        users, shown = (impressions[name].to_numpy()[rows] for name in ("user_id", "shown_at"))
        asked = pa.table({"user_id": pa.array(users, pa.string()), "shown_at": pa.array(shown, pa.int64()).cast(_TIME)})
        made, ends = build_sequences(table.slice(first, end - first), asked, sequences=sequences)
        for feature, (starts, stops) in _bounds(users, made, ends, sequences):
            bounds[feature][:, rows] = written + starts, written + stops
        behavior_rows.append(
            row_of_key[np.asarray(pc.index_in(whole(made["behavior_keys"]).flatten(), keys), np.int64)]
        )
        occurred_at.append(micros(whole(made["occurred_at"]).flatten()))
        written += len(occurred_at[-1])
    every_row, every_time = np.concatenate(behavior_rows).astype(np.int64), np.concatenate(occurred_at)
    return {feature: Histories(every_row, every_time, starts, ends) for feature, (starts, ends) in bounds.items()}


def _bounds(
    users: np.ndarray, made: pa.Table, ends: pa.MapArray, sequences: SequencesConfig
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield by text feature where each impression's newest behaviors begin and end in the day's sequences, (R,) int64 each.

    `users` are those of the impressions; 0 and 0 where a user has none.
    """
    lengths = np.asarray(pc.list_value_length(made["behavior_keys"]), np.int64)
    first = np.cumsum(lengths) - lengths
    of_rows = entries(ends)
    for feature in pc.unique(made["feature"]).to_pylist():
        of_feature, asked = (np.asarray(pc.equal(column, feature)) for column in (made["feature"], of_rows.keys))
        row, length = of_rows.row[asked], np.asarray(of_rows.values, np.int64)[asked]
        of_user = pd.Index(made["user_id"].filter(pa.array(of_feature)).to_pylist()).get_indexer(users[row])
        begins, stops = np.zeros((2, len(users)), np.int64)
        stops[row] = first[of_feature][of_user] + length
        begins[row] = stops[row] - np.minimum(length, sequences.behaviors_read(feature))
        yield feature, (begins, stops)


def _table_of(events: pd.DataFrame) -> pa.Table:
    """Return the columns that `build_sequences` reads."""
    schema = arrow_schema("behavior_events")
    names = [name for name in EVENT_COLUMNS if name != "dt"]
    columns = {name: events[name] for name in names if name != "occurred_at"}
    arrays = {name: pa.array(column, schema.field(name).type, from_pandas=True) for name, column in columns.items()}
    arrays["occurred_at"] = pa.array(events["occurred_at"].to_numpy(np.int64)).cast(_TIME)
    return pa.table(arrays)
