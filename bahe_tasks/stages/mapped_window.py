"""What a window's impressions read beside themselves, in mapped memory: their users' sequences, the embeddings, their sums.

The tables are streamed, the sequences twice: once for the distinct behaviors, and again when each has its row. The files
lie under HOME/work until the day is done, so that fine_tune and the gate read each table once between them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from bahe_tasks.config import Config
from bahe_tasks.core.rows_at import RowsAt
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.running_sums import IMPRESSION_SUMS
from bahe_tasks.stages.behavior_digests import digests_of
from bahe_tasks.stages.embedding_index import EmbeddingIndex, map_index, write_index
from bahe_tasks.stages.window import Window, user_days
from bahe_tasks.stages.work_folders import kept_folder
from bahe_tasks.stored_sums import stored_sums
from bahe_tasks.stores.delta_tables import read_batches, table_identity
from bahe_tasks.stores.mapped_arrays import map_array
from spark_jobs.arrow_columns import micros

_TABLES = ("impressions", "user_sequences", "behavior_embeddings")
_EVENTS = {"behavior_rows": "<i8", "occurred_at": "<i8"}
_STARTS = pa.schema([("dt", pa.date32()), ("user_id", pa.string()), ("feature", pa.string()), ("start", pa.int64())])


class TableChangedError(RuntimeError):
    """The impressions are not those that were read a moment ago."""

    def __init__(self) -> None:
        super().__init__("the impressions of the window were written anew while they were read: run again")


@dataclass(frozen=True)
class MappedSequences:
    """Sequences one after another, E behaviors: `starts` has where each begins, as (dt, user_id, feature, start)."""

    starts: pa.Table
    behavior_rows: np.ndarray  # (E,) int64, row in the embedding matrix
    occurred_at: np.ndarray  # (E,) int64, microseconds since 1970 UTC


@dataclass(frozen=True)
class MappedWindow:
    """The embeddings, the sequences and the running sums of some impressions of a window."""

    index: EmbeddingIndex
    sequences: MappedSequences
    sums: np.ndarray  # (I, len(IMPRESSION_SUMS)) float64, NaN = absent
    in_table: np.ndarray  # (I,) int64, sorted: where in `Window.table` these impressions are

    def sums_of(self, places: np.ndarray) -> RowsAt:
        """Return the running sums of the impressions at these places in `Window.table`, (R,) int64.

        Raises `ValueError` for an impression that is not among the mapped ones.
        """
        if not np.isin(places, self.in_table).all():
            raise ValueError("impressions of the window whose sums were not mapped")
        return RowsAt(self.sums, np.searchsorted(self.in_table, places))


def map_window(window: Window, mask: np.ndarray, config: Config, *, encoder_version: str) -> MappedWindow:
    """Return what the masked impressions read, from the day's files; they are written where they are not there yet.

    Raises `MissingEmbeddingError` and `TableChangedError`.
    """
    order = window.order[mask]  # sums are told by where their rows are in the table
    name = fingerprint(
        tables={name: table_identity(config.tables_dir, name) for name in _TABLES},
        partitions=window.partitions,
        rows=hashlib.sha256(order.tobytes()).hexdigest(),
        encoder_version=encoder_version,
    )
    in_table = np.sort(order)

    def write(folder: Path) -> None:
        _write_sums(folder, window, in_table, config)
        impressions = window.columns(["dt", "user_id", "title_key"], mask)
        wanted = pd.Index(user_days(impressions, window.users)).unique()

        def digests() -> Iterator[np.ndarray]:
            yield digests_of(impressions["title_key"])
            for batch in _sequences(window, wanted, config, ["behavior_keys"]):
                yield digests_of(pc.list_flatten(batch["behavior_keys"]))

        count = write_index(folder, digests(), config, encoder_version=encoder_version)
        events = _write_sequences(folder, window, wanted, map_index(folder, count, config), config)
        (folder / "counts").write_text(json.dumps({"behaviors": count, "events": events}), encoding="utf-8")

    def read(folder: Path) -> MappedWindow:
        counts = json.loads((folder / "counts").read_text(encoding="utf-8"))
        events = {name: map_array(folder / name, dtype, (counts["events"],)) for name, dtype in _EVENTS.items()}
        starts = feather.read_table(folder / "starts", memory_map=False)
        sums = map_array(folder / "sums", "<f8", (len(in_table), len(IMPRESSION_SUMS)))
        index = map_index(folder, counts["behaviors"], config)
        return MappedWindow(index, MappedSequences(starts, **events), sums, in_table)

    return kept_folder(window.day, name[:16], config, write=write, read=read)


def _sequences(window: Window, wanted: pd.Index, config: Config, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the sequences of these `user_days`, in the table's order."""
    columns = ["dt", "user_id", *columns]
    for batch in read_batches(config.tables_dir, "user_sequences", columns=columns, partitions=window.partitions):
        yield batch.filter(pa.array(wanted.get_indexer(pd.Index(user_days(batch, window.users))) >= 0))


def _write_sequences(folder: Path, window: Window, wanted: pd.Index, index: EmbeddingIndex, config: Config) -> int:
    """Write the sequences with the rows of their behaviors; return how many behaviors there are."""
    events, starts = 0, [_STARTS.empty_table()]
    columns = ["feature", "behavior_keys", "occurred_at"]
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in _EVENTS}
        for batch in _sequences(window, wanted, config, columns):
            lengths = np.asarray(pc.list_value_length(batch["behavior_keys"]), np.int64)
            start = pa.array(events + np.cumsum(lengths) - lengths)
            starts.append(pa.table([batch["dt"], batch["user_id"], batch["feature"], start], schema=_STARTS))
            index.rows_of(pc.list_flatten(batch["behavior_keys"])).tofile(files["behavior_rows"])
            micros(pc.list_flatten(batch["occurred_at"])).tofile(files["occurred_at"])
            events += int(lengths.sum())
    feather.write_feather(pa.concat_tables(starts), str(folder / "starts"), compression="uncompressed")
    return events


def _write_sums(folder: Path, window: Window, in_table: np.ndarray, config: Config) -> None:
    """Write the running sums of the impressions at these places in the window's table. Raises `TableChangedError`."""
    ids, start = window.table["impression_id"], 0
    columns = ["impression_id", "sums"]
    with (folder / "sums").open("wb") as file:
        for batch in read_batches(config.tables_dir, "impressions", columns=columns, partitions=window.partitions):
            end = start + len(batch)
            if not ids.slice(start, len(batch)).equals(pa.chunked_array([batch["impression_id"]])):
                raise TableChangedError
            wanted = in_table[np.searchsorted(in_table, start) : np.searchsorted(in_table, end)] - start
            stored_sums(batch["sums"].take(pa.array(wanted)), len(IMPRESSION_SUMS)).tofile(file)
            start = end
    if start != len(ids):
        raise TableChangedError
