"""Small data files of tables, held in this process once they were read: a commit never changes a file.

A table by day has a file a day. Of a year of small ones most of the reading is opening them, and a backfill reads most of
them again each day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
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


def read_files(files: ds.FileSystemDataset, uri: str, *, columns: list[str], filters: pc.Expression | None) -> pa.Table:
    """Return columns of the rows of a table's data files that satisfy `filters`; `uri` is the table's address."""
    small, others = _parted(files, uri)
    tables = [] if others is None else [others.to_table(columns=columns, filter=filters)]
    if small is not None:
        tables.append((small if filters is None else small.filter(filters)).select(columns))
    return pa.concat_tables(tables) if tables else files.schema.empty_table().select(columns)


def scan_files(
    files: ds.FileSystemDataset, uri: str, *, columns: list[str], filters: pc.Expression | None, **readahead: Any
) -> Iterator[pa.RecordBatch]:
    """Yield what `read_files` would return, large files a few at a time."""
    small, others = _parted(files, uri)
    if small is not None:
        rows = small if filters is None else small.filter(filters)
        yield from rows.select(columns).to_batches()
    if others is not None:
        yield from others.to_batches(columns=columns, filter=filters, **readahead)


def _parted(files: ds.FileSystemDataset, uri: str) -> tuple[pa.Table | None, ds.FileSystemDataset | None]:
    """Return the rows of the small files, and the other files; `None` where there are none."""
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
    held = [(known | fresh)[path].rows for path in fragments if path in small]
    others = [fragment for path, fragment in fragments.items() if path not in small]
    rows = pa.concat_tables(held).combine_chunks() if held else None  # one chunk is quicker to filter than many
    return rows, _of(files, others) if others else None


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
