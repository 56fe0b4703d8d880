"""From tables to the rows a model reads: impressions with their point-in-time histories and their embeddings.

The only way from the tables to `core.batches.ImpressionRows`; training, progressive scoring and the gate share it, so
none can see more of the past than another. Histories stay one array per user and feature; an impression holds offsets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.checkpoint import embedding_width
from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.core.batches import Histories, ImpressionRows, MissingEmbeddingError
from bahe_tasks.running_sums import IMPRESSION_SUMS
from bahe_tasks.stages.days_in_force import first_impression_day, readable_partitions
from bahe_tasks.stores.delta_tables import read_table

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Window:
    """Impressions a run of D may look at, sorted by (shown_at, impression_id), and their users' sequences.

    `train_date` is the day whose run trains on a row: the day its label is usable, gate.gate_days later if held out.
    """

    day: date
    impressions: pa.Table
    sequences: pa.Table
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


def is_held_out(user_id: str, day: date, share: float) -> bool:
    """Return whether the user's impressions of the day are held out: hash(user_id, D) < share (DESIGN)."""
    digest = hashlib.sha256(f"{user_id}\x00{day}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def read_window(day: date, config: Config) -> Window:
    """Read what a run of D may train on or judge by; refused days are left out."""
    tables_dir, first = config.tables_dir, first_impression_day(day, config)
    days = readable_partitions(first, day, config)
    impressions = read_table(tables_dir, "impressions", partitions=days)
    impressions = impressions.sort_by([("shown_at", "ascending"), ("impression_id", "ascending"), ("dt", "ascending")])
    landed = np.asarray(impressions["dt"], dtype="datetime64[D]")
    label_date = np.asarray(impressions["label_date"], dtype="datetime64[D]")
    late = np.asarray(impressions["is_late"])
    pairs = set(zip(impressions["user_id"].to_pylist(), impressions["dt"].to_pylist(), strict=True))
    held = {pair for pair in pairs if is_held_out(*pair, config.gate.held_out_share)}
    rows = zip(impressions["user_id"].to_pylist(), impressions["dt"].to_pylist(), strict=True)
    held_out = np.fromiter((pair in held for pair in rows), bool, impressions.num_rows) & ~late
    train_date = label_date + np.where(held_out, config.gate.gate_days, 0).astype("timedelta64[D]")
    unusable = (label_date - landed).astype(int) > config.landing.label_horizon_days
    train_date[unusable] = label_date[unusable] = np.datetime64(day + timedelta(days=1))
    return Window(
        day=day,
        impressions=impressions,
        sequences=read_table(tables_dir, "user_sequences", partitions=days),
        held_out=held_out,
        label_date=label_date,
        train_date=train_date,
    )


@dataclass(frozen=True)
class EmbeddingIndex:
    """Behavior keys and their embeddings: row i of `vectors` (M, H) float16 belongs to `keys[i]`, keys sorted."""

    keys: pd.Index
    vectors: np.ndarray

    def rows_of(self, keys: pa.ChunkedArray) -> np.ndarray:
        """Return the row of each key, int64; -1 for null. A key without an embedding raises `MissingEmbeddingError`."""
        found = self.keys.get_indexer(keys.to_pandas())
        missing = (found < 0) & ~np.asarray(keys.is_null())
        if missing.any():
            names = sorted(set(keys.filter(pa.array(missing)).to_pylist()))
            raise MissingEmbeddingError(
                f"{len(names)} behaviors have no embedding, for example {', '.join(names[:3])}; "
                "run encode_behaviors of this day again"
            )
        return found.astype(np.int64)


def read_embeddings(config: Config, keys: Sequence[pa.ChunkedArray], *, encoder_version: str) -> EmbeddingIndex:
    """Return the stored embeddings of the given keys (nulls and repeats allowed)."""
    distinct = pc.unique(pa.chunked_array([chunk for array in keys for chunk in array.chunks], pa.string())).drop_null()
    return read_stored_embeddings(config, distinct.to_pylist(), encoder_version=encoder_version)


def read_stored_embeddings(config: Config, keys: Sequence[str], *, encoder_version: str) -> EmbeddingIndex:
    """Return the embeddings of those of the distinct keys that have one."""
    table = read_table(
        config.tables_dir,
        "behavior_embeddings",
        columns=["behavior_key", "embedding"],
        partitions=f"encoder_version = '{encoder_version}'",
        filters=pc.field("behavior_key").isin(pa.array(keys, pa.string())),
    )
    wide = table["embedding"].cast(pa.large_binary())  # the offsets of plain binary end at 2 GiB
    table = table.set_column(1, "embedding", wide).sort_by("behavior_key")
    width = embedding_width(config.encoder.checkpoint)
    blobs = pa.concat_arrays(table["embedding"].chunks or [pa.array([], pa.large_binary())])  # not an object a row
    vectors = np.frombuffer(blobs.buffers()[2] or b"", dtype="<f2", count=len(blobs) * width).reshape(-1, width)
    return EmbeddingIndex(pd.Index(table["behavior_key"].to_pandas()), vectors)


def window_keys(window: Window, mask: np.ndarray) -> list[pa.ChunkedArray]:
    """Return the behavior keys reachable from the masked impressions: titles, and all sequences of their users."""
    impressions, sequences = _with_sequences(window, mask)
    return [impressions["title_key"], pc.list_flatten(sequences["behavior_keys"])]


def impression_rows(
    window: Window, mask: np.ndarray, index: EmbeddingIndex, *, sequences: SequencesConfig
) -> ImpressionRows:
    """Return the masked impressions, in the window's order, each with the newest S behaviors before it."""
    impressions, of_users = _with_sequences(window, mask)
    ends = _map_columns(impressions["sequence_ends"], np.int64, 0)
    shown_at = _micros(impressions["shown_at"])
    histories = {}
    for feature in sorted(set(of_users["feature"].to_pylist())):
        of_feature = of_users.filter(pc.equal(of_users["feature"], feature))
        lists = of_feature["behavior_keys"].combine_chunks()
        offsets = np.asarray(lists.offsets, dtype=np.int64) - lists.offsets[0].as_py()
        row = _day_and_user(of_feature).get_indexer(_day_and_user(impressions))
        base = np.where(row >= 0, offsets[row], 0)
        end = np.where(row >= 0, ends.get(feature, np.zeros(len(row), np.int64)), 0)
        histories[feature] = Histories(
            behavior_rows=index.rows_of(pc.list_flatten(of_feature["behavior_keys"])),
            occurred_at=_micros(pc.list_flatten(of_feature["occurred_at"])),
            values=np.asarray(pc.list_flatten(of_feature["values"]).to_pandas(), dtype=np.float32),
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
        title_rows=index.rows_of(impressions["title_key"]),
        histories=histories,
        cat=_map_columns(impressions["cat"], object, None),
        num=_map_columns(impressions["num"], np.float64, np.nan),
        extra_labels=_map_columns(impressions["labels"], np.float32, np.nan),
        sums=_sums(impressions["sums"]),
    )


def _sums(column: pa.ChunkedArray) -> np.ndarray:
    """Return the sums of R impressions, (R, len(IMPRESSION_SUMS)) float64; NaN where null."""
    sums = np.full((len(column), len(IMPRESSION_SUMS)), np.nan)
    known = ~np.asarray(column.is_null(), bool)
    flat = pc.list_flatten(column).to_pandas().to_numpy(dtype=np.float64)
    sums[known] = flat.reshape(-1, len(IMPRESSION_SUMS))
    return sums


def _with_sequences(window: Window, mask: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """Return the masked impressions and the sequences of their users on their days."""
    impressions = window.impressions.filter(pa.array(mask))
    wanted = _day_and_user(window.sequences).isin(_day_and_user(impressions))
    return impressions, window.sequences.filter(pa.array(wanted))


def _day_and_user(table: pa.Table) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([table["dt"].to_pandas(), table["user_id"].to_pandas()])


def _map_columns(maps: pa.ChunkedArray, dtype: type, absent: object) -> dict[str, np.ndarray]:
    """Turn a column of maps (R rows) into one array (R,) per key; `absent` where a row has no such key."""
    array = maps.combine_chunks()
    lengths = np.diff(np.asarray(array.offsets))
    parents = np.repeat(np.arange(len(array)), lengths)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    names = np.asarray(array.keys[first:last].to_pandas(), dtype=object)
    values = np.asarray(array.items[first:last].to_pandas(), dtype=object)
    columns: dict[str, np.ndarray] = {}
    for name in sorted(set(names)):
        of_name = names == name
        column: np.ndarray = np.full(len(array), absent, dtype=dtype)
        column[parents[of_name]] = values[of_name]
        columns[name] = column
    return columns


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_pandas(), dtype=object)


def _micros(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), dtype=np.int64)
