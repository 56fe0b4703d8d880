"""From tables to the rows a model reads: impressions with their point-in-time histories and their embeddings.

The only way from the tables to `core.training_rows.ImpressionRows`; training, progressive scoring and the gate share it, so
none can see more of the past than another. Histories stay one array per user and feature; an impression holds offsets.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.config import SequencesConfig
from bahe_tasks.core.training_rows import Histories, ImpressionRows
from bahe_tasks.stages.mapped_window import MappedWindow, micros
from bahe_tasks.stages.window import Window, user_days

_DAY_US = 86_400_000_000
_COLUMNS = ("dt", "impression_id", "user_id", "item_id", "shown_at", "label", "title_key", "outcome_value")


def impression_rows(
    window: Window, mask: np.ndarray, mapped: MappedWindow, *, sequences: SequencesConfig
) -> ImpressionRows:
    """Return the masked impressions, in the window's order, each with the newest S behaviors before it.

    `mapped` is what these impressions read, at least. Raises `ValueError` where it is not.
    """
    impressions = window.columns(_COLUMNS, mask)
    places = window.order[mask]
    in_table, at = np.unique(places, return_inverse=True)
    of_maps = window.table.select(["sequence_ends", "cat", "num", "labels"]).take(pa.array(in_table))
    of_users = mapped.sequences
    ends = _map_columns(of_maps["sequence_ends"], at, np.int64, 0)
    shown_at = micros(impressions["shown_at"])
    of_rows = user_days(impressions, window.users)
    histories = {}
    for feature in sorted(pc.unique(of_users.starts["feature"]).to_pylist()):
        of_feature = of_users.starts.filter(pc.equal(of_users.starts["feature"], feature))
        row = pd.Index(user_days(of_feature, window.users)).get_indexer(of_rows)
        base = np.where(row >= 0, np.asarray(of_feature["start"])[row], 0)
        end = np.where(row >= 0, ends.get(feature, np.zeros(len(row), np.int64)), 0)
        histories[feature] = Histories(
            behavior_rows=of_users.behavior_rows,
            occurred_at=of_users.occurred_at,
            starts=base + np.maximum(0, end - sequences.behaviors_read(feature)),
            ends=base + end,
        )
    return ImpressionRows(
        impression_ids=_objects(impressions["impression_id"]),
        user_ids=_objects(impressions["user_id"]),
        item_ids=_objects(impressions["item_id"]),
        shown_at=shown_at,
        as_of=shown_at - shown_at % _DAY_US if sequences.history_as_of == "day_start" else shown_at,
        labels=np.asarray(impressions["label"], dtype=np.float32),
        title_rows=mapped.index.rows_of(impressions["title_key"]),
        histories=histories,
        cat=_map_columns(of_maps["cat"], at, object, None),
        num=_map_columns(of_maps["num"], at, np.float64, np.nan),
        extra_labels=_map_columns(of_maps["labels"], at, np.float32, np.nan),
        sums=mapped.sums_of(places),
        outcome_values=impressions["outcome_value"].to_numpy(),
    )


def _map_columns(maps: pa.ChunkedArray, at: np.ndarray, dtype: type, absent: object) -> dict[str, np.ndarray]:
    """Turn a column of maps (R rows) into one array (R,) per key, row r that of the map at[r]; `absent` where it lacks the key.

    Unusual: the columns are put in order, not the maps, which takes several times as long.
    """
    array = maps.combine_chunks()
    lengths = np.diff(np.asarray(array.offsets))
    parents = np.repeat(np.arange(len(array)), lengths)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    names = array.keys[first:last].dictionary_encode()
    columns: dict[str, np.ndarray] = {}
    for name, code in sorted((name, code) for code, name in enumerate(names.dictionary.to_pylist())):
        of_name = pc.equal(names.indices, code)
        values = array.items[first:last].filter(of_name)
        if values.null_count and np.issubdtype(dtype, np.integer):
            raise ValueError(f"a null under {name!r} in a map of whole numbers: run the day's dedup_behaviors again")
        column: np.ndarray = np.full(len(array), absent, dtype=dtype)
        column[parents[np.asarray(of_name)]] = (
            _objects(values) if dtype is object else values.to_numpy(zero_copy_only=False)
        )
        columns[name] = column[at]
    return columns


def _objects(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return texts (R,) object, equal ones the same object: a log has far fewer users and items than impressions."""
    return np.asarray(column.to_pandas(deduplicate_objects=True), dtype=object)
