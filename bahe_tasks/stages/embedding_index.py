"""The behavior embeddings that a stage reads, as one matrix in mapped memory: row i belongs to the i-th of the sorted keys.

Written in one pass over the table's record batches. Neither keys nor vectors are held in memory: a lookup of keys is a
search in a mapped file, and a gather of rows reads the pages they lie on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from bahe_tasks.checkpoint import embedding_width
from bahe_tasks.config import Config
from bahe_tasks.core.batches import MissingEmbeddingError
from bahe_tasks.stages.behavior_digests import DigestSet, digests_of, keys_of, map_digests, write_distinct
from bahe_tasks.stages.work_folders import scratch_folder
from bahe_tasks.stores.delta_tables import read_batches
from bahe_tasks.stores.mapped_arrays import map_array
from bahe_tasks.stores.sorted_rows import write_in_order

_TABLE = "behavior_embeddings"
_NAMED = 3


class NotEncodedError(MissingEmbeddingError):
    """Behaviors without an embedding under this encoder; `keys` are all of them."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(
            f"{len(keys)} behaviors have no embedding, for example {', '.join(keys[:_NAMED])}; "
            "run the days that brought them again with --force"
        )
        self.keys = keys


@dataclass(frozen=True)
class EmbeddingIndex:
    """M distinct behaviors and their embeddings, `vectors` (M, H) float16."""

    keys: DigestSet
    vectors: np.ndarray

    def rows_of(self, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the row of each key, int64; -1 for null. A key without an embedding raises `MissingEmbeddingError`."""
        digests = digests_of(keys)
        rows = np.full(len(keys), -1, np.int64)
        rows[~np.asarray(keys.is_null())] = found = self.keys.rows_of(digests)
        if (found < 0).any():
            raise _missing(digests[found < 0])
        return rows

    def keys_at(self, rows: np.ndarray) -> list[str]:
        """Return the behavior keys of these rows (K,) int64."""
        return keys_of(self.keys.digests[rows])


def read_embeddings(day: date, config: Config, parts: Iterable[np.ndarray], *, encoder_version: str) -> EmbeddingIndex:
    """Return the stored embeddings of all digests in `parts` (K,) S32, in files that are gone with the index.

    Raises `MissingEmbeddingError`.
    """
    with scratch_folder(day, config) as folder:
        count = write_index(folder, parts, config, encoder_version=encoder_version)
        return map_index(folder, count, config)


def write_index(folder: Path, parts: Iterable[np.ndarray], config: Config, *, encoder_version: str) -> int:
    """Write the index of all digests in `parts` (K,) S32 to files in the folder; return how many are distinct.

    Raises `MissingEmbeddingError`.
    """
    count = write_distinct(parts, folder)
    keys = map_digests(folder, count)
    width = embedding_width(config.encoder.checkpoint)

    def stored() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in _batches(config, ["behavior_key", "embedding"], encoder_version) if count else ():
            rows = keys.rows_of(digests_of(batch["behavior_key"]))
            wanted = rows >= 0
            yield rows[wanted], _vectors(batch["embedding"], width)[wanted]

    is_stored = write_in_order(folder / "vectors", stored(), (count, width))
    if not is_stored.all():
        raise _missing(keys.digests[~is_stored])
    return count


def map_index(folder: Path, count: int, config: Config) -> EmbeddingIndex:
    """Return the index that `write_index` wrote. Raises `CutShortError` and `OSError`."""
    width = embedding_width(config.encoder.checkpoint)
    return EmbeddingIndex(map_digests(folder, count), map_array(folder / "vectors", "<f2", (count, width)))


def are_stored(sets: Sequence[DigestSet], config: Config, *, encoder_version: str) -> list[np.ndarray]:
    """Return for each set which of its keys (M,) have an embedding, bool; the table is read once for all."""
    stored = [np.zeros(len(keys.digests), bool) for keys in sets]
    for batch in _batches(config, ["behavior_key"], encoder_version) if any(map(len, stored)) else ():
        digests = digests_of(batch["behavior_key"])
        for keys, of_keys in zip(sets, stored, strict=True):
            rows = keys.rows_of(digests)
            of_keys[rows[rows >= 0]] = True
    return stored


def _batches(config: Config, columns: list[str], encoder_version: str) -> Iterator[pa.RecordBatch]:
    of_version = f"encoder_version = '{encoder_version}'"
    return read_batches(config.tables_dir, _TABLE, columns=columns, partitions=of_version)


def _vectors(blobs: pa.Array, width: int) -> np.ndarray:
    """Return the vectors of embeddings as they are stored, (K, H) float16, without a copy."""
    offsets = np.frombuffer(blobs.buffers()[1], np.int32)[blobs.offset : blobs.offset + len(blobs) + 1]
    if blobs.null_count or (np.diff(offsets) != 2 * width).any():
        raise ValueError(f"{_TABLE} holds embeddings that are not {width} float16 numbers: encode them again")
    return np.frombuffer(blobs.buffers()[2], "<f2", len(blobs) * width, offsets[0]).reshape(-1, width)


def _missing(digests: np.ndarray) -> NotEncodedError:
    return NotEncodedError(keys_of(np.unique(digests)))
