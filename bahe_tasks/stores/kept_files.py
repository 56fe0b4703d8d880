"""Small data files of tables, held in this process once they were read: a commit never changes a file.

A table by day has a file a day. Of a year of small ones most of the reading is opening them, and a backfill reads most of
them again each day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
from cachetools import LRUCache

_LARGEST_FILE = 1 << 18
"""Bytes of the largest file that is held; its rows take some times as much."""
_MOST_AT_ONCE = 1 << 26
"""Bytes of the small files that one read holds; further ones are read as large ones are."""
_MOST_BYTES = 1 << 28
"""Bytes of all rows that are held."""
_FILE = "__filename"


class _Kept(NamedTuple):
    rows: pa.Table
    file_bytes: int


_kept: LRUCache[str, _Kept] = LRUCache(_MOST_BYTES, getsizeof=lambda kept: max(kept.rows.nbytes, 1))
_lock = Lock()


def with_kept(files: ds.FileSystemDataset, uri: str) -> list[ds.Dataset]:
    """Return the data files of a table as data sets, in their order: small ones that follow each other are rows in memory.

    `uri` is the table's address.
    """
    fragments = {fragment.path: fragment for fragment in files.get_fragments()}
    with _lock:
        known = {path: kept for path in fragments if (kept := _kept.get(f"{uri}/{path}")) is not None}
    unknown = [path for path in fragments if path not in known]
    sizes = {path: kept.file_bytes for path, kept in known.items()}
    sizes |= {info.path: info.size for info in files.filesystem.get_file_info(unknown)}
    small = set(_small(fragments, sizes))
    read = _rows_by_file(_of(files, [fragments[path] for path in unknown if path in small]))
    fresh = {path: _Kept(rows, sizes[path]) for path, rows in read.items()}
    with _lock:
        _kept.update({f"{uri}/{path}": kept for path, kept in fresh.items() if kept.rows.nbytes < _MOST_BYTES})
    held = known | fresh
    return [
        # one chunk is quicker to filter than many
        ds.dataset(pa.concat_tables([held[path].rows for path in paths]).combine_chunks())
        if is_small
        else _of(files, [fragments[path] for path in paths])
        for is_small, paths in groupby(fragments, key=lambda path: path in small)
    ]


def _small(paths: Iterable[str], sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the paths of small files, until they are too many."""
    total = 0
    for path in paths:
        if sizes[path] <= _LARGEST_FILE and total + sizes[path] <= _MOST_AT_ONCE:
            total += sizes[path]
            yield path


def _rows_by_file(files: ds.FileSystemDataset) -> dict[str, pa.Table]:
    """Return the rows of each file. They are read together: one by one takes three times as long."""
    batches: dict[str, list[pa.RecordBatch]] = {path: [] for path in files.files}
    for batch in files.to_batches(columns=[*files.schema.names, _FILE]):  # each is of one file
        if len(batch):
            batches[batch[_FILE][0].as_py()].append(batch.drop_columns([_FILE]))
    return {path: pa.Table.from_batches(of, files.schema) for path, of in batches.items()}


def _of(files: ds.FileSystemDataset, fragments: list[ds.FileFragment]) -> ds.FileSystemDataset:
    return ds.FileSystemDataset(fragments, files.schema, files.format, files.filesystem)
