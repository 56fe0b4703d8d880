"""Small data files of tables, held in a process that runs many days: a commit never changes a file.

A table by day has a file a day. Of a year of small ones most of the reading is opening them, and a backfill reads most of
them again each day. A process that reads a table once has nothing of it, so nothing is held unless `small_files_held`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from threading import Lock

import pyarrow as pa
import pyarrow.dataset as ds
from cachetools import LRUCache

_LARGEST_FILE = 1 << 18
"""Bytes of the largest file that is held; its rows take up to fifteen times as much."""
_MOST_AT_ONCE = 1 << 24
"""Bytes of the small files that one read holds; further ones are read as large ones are."""
_MOST_BYTES = 1 << 28
"""Bytes of all rows that are held."""
_FILE = "__filename"


@dataclass
class _Held:
    """Addresses of files → rows of those that are held, and bytes of all that were asked for."""

    rows: LRUCache[str, pa.Table] = field(
        default_factory=lambda: LRUCache(_MOST_BYTES, getsizeof=lambda rows: max(rows.nbytes, 1))
    )
    sizes: dict[str, int | None] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


_held: _Held | None = None


@contextmanager
def small_files_held() -> Iterator[None]:
    """Hold small files of the tables that are read within, and forget them afterwards."""
    global _held
    before, _held = _held, _held or _Held()
    try:
        yield
    finally:
        _held = before


def with_held(files: ds.FileSystemDataset, uri: str) -> list[ds.Dataset]:
    """Return the data files of a table as data sets, in their order: small ones that follow each other are rows in memory.

    `uri` is the table's address.
    """
    held = _held
    if held is None:
        return [files]
    fragments = {fragment.path: fragment for fragment in files.get_fragments()}
    with held.lock:
        unknown = [path for path in fragments if f"{uri}/{path}" not in held.sizes]
        sizes = {info.path: info.size for info in files.filesystem.get_file_info(unknown)}
        held.sizes |= {f"{uri}/{path}": size for path, size in sizes.items()}
        small = set(_small(fragments, {path: held.sizes[f"{uri}/{path}"] for path in fragments}))
        rows = {path: found for path in small if (found := held.rows.get(f"{uri}/{path}")) is not None}
        fresh = _rows_by_file(_of(files, [fragments[path] for path in fragments if path in small - rows.keys()]))
        held.rows.update({f"{uri}/{path}": of for path, of in fresh.items() if of.nbytes < _MOST_BYTES})
    rows |= fresh
    return [
        # one chunk is quicker to filter than many
        ds.dataset(pa.concat_tables([rows[path] for path in paths]).combine_chunks())
        if is_small
        else _of(files, [fragments[path] for path in paths])
        for is_small, paths in groupby(fragments, key=lambda path: path in small)
    ]


def _small(paths: Iterable[str], sizes: Mapping[str, int | None]) -> Iterator[str]:
    """Yield the paths of small files, until they are too many; one that is missing is left to whoever reads it."""
    total = 0
    for path in paths:
        size = sizes[path]
        if size is not None and size <= _LARGEST_FILE and total + size <= _MOST_AT_ONCE:
            total += size
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
