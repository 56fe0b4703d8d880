"""Delta tables without Spark: their rows, their files, their versions.

Unusual: files are read through pyarrow's own file systems. The file system deltalake would supply is written in Python
and is called from threads that outlive the interpreter: a process that has read a table then aborts at its exit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.held_files import with_held
from bahe_tasks.stores.opened_tables import open_table

_ROWS_AT_ONCE = 8192
_READ_WHOLE = ("behavior_events", "items")
"""Tables of which each day reads many earlier days, with most of their columns."""
_STREAMED: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20}  # else a whole row group is held


def table_uri(tables_dir: Path | str, name: str) -> str:
    """Return the address of a table: `tables_dir` may be a folder or the address of an object store."""
    return f"{str(tables_dir).rstrip('/')}/{TABLES[name].name}"


def table_version(tables_dir: Path | str, name: str) -> int | None:
    """Return the newest version of a table, `None` when it does not exist."""
    table = open_table(table_uri(tables_dir, name))
    return None if table is None else table.version()


def read_table(
    tables_dir: Path | str,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    partitions: str | None = None,
    filters: pc.Expression | None = None,
    version: int | None = None,
) -> pa.Table:
    """Return the rows of some partitions that satisfy `filters`, in the order of `read_batches`.

    `partitions` is SQL over the partition columns, for example "dt >= '2013-09-01' AND dt <= '2013-09-24'": other
    partitions' files are not even listed, so a read costs the same however old the table is. `filters` may name any
    column. `columns` are all columns unless given. A table that does not exist is an empty one with the right schema.
    """
    schema = arrow_schema(name)
    wanted = list(columns or schema.names)
    none = schema.empty_table().select(wanted)
    dataset = _dataset(tables_dir, name, partitions=partitions, version=version)
    if dataset is None:
        return none
    # of a version that was asked for files may be deleted by now, which is to be seen
    parts = _parts(dataset, tables_dir, name) if version is None else [dataset]
    return pa.concat_tables([none, *(part.to_table(columns=wanted, filter=filters) for part in parts)])


def scan_table(
    tables_dir: Path | str, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None
) -> Iterator[pa.RecordBatch]:
    """Yield what `read_table` would return: a few files at a time are held, never the table, but for small files of a backfill."""
    dataset = _dataset(tables_dir, name, partitions=partitions, version=None)
    if dataset is not None:
        for part in _parts(dataset, tables_dir, name):
            yield from part.to_batches(columns=list(columns), filter=filters, fragment_readahead=2)


def read_batches(
    tables_dir: Path | str,
    name: str,
    *,
    columns: Sequence[str],
    partitions: str | None = None,
    version: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield what `read_table` would return, some thousand rows at a time: memory does not grow with the table.

    Rows come in the same order every time the same version is read. Unusual: files are read one by one, since a scan of
    pyarrow's data sets holds several whole files, whatever its settings say.
    """
    schema = pa.schema([arrow_schema(name).field(column) for column in columns])
    dataset = _dataset(tables_dir, name, partitions=partitions, version=version)
    for fragment in dataset.get_fragments() if dataset is not None else ():
        of_partition = ds.get_partition_keys(fragment.partition_expression)
        with dataset.filesystem.open_input_file(fragment.path) as source:  # type: ignore[union-attr]
            file = pq.ParquetFile(source, **_STREAMED)
            read = [column for column in columns if column in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=read, use_threads=False):
                arrays = [
                    batch[field.name].cast(field.type)
                    if field.name in read
                    else pa.repeat(pa.scalar(of_partition.get(field.name), field.type), batch.num_rows)
                    for field in schema
                ]
                yield pa.record_batch(arrays, schema=schema)


def table_identity(tables_dir: Path | str, name: str) -> str:
    """Return what changes with every commit, and when a table is deleted and made again; "" when there is none."""
    table = open_table(table_uri(tables_dir, name))
    return "" if table is None else f"{table.metadata().id}/{table.version()}"


def data_files(tables_dir: Path | str, name: str, *, partitions: str | None = None) -> list[str]:
    """Return the addresses of the data files of some partitions, in order; none for a table that does not exist."""
    dataset = _dataset(tables_dir, name, partitions=partitions)
    return sorted(f"{table_uri(tables_dir, name)}/{file}" for file in dataset.files) if dataset is not None else []


def data_fragments(
    tables_dir: Path | str, name: str, *, partitions: str | None = None
) -> list[tuple[ds.Fragment, int]]:
    """Return the data files of some partitions, each with its bytes; they can be pickled, and know their partition."""
    dataset = _dataset(tables_dir, name, partitions=partitions)
    if dataset is None:
        return []
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
    sizes = dataset.filesystem.get_file_info([fragment.path for fragment in fragments])
    return [(fragment, of.size) for fragment, of in zip(fragments, sizes, strict=True)]


def count_stored(tables_dir: Path | str, name: str, *, partitions: str | None = None) -> int:
    """Return the number of rows of some partitions; 0 for a table that does not exist."""
    dataset = _dataset(tables_dir, name, partitions=partitions)
    return 0 if dataset is None else int(dataset.count_rows())


def _dataset(
    tables_dir: Path | str, name: str, *, partitions: str | None, version: int | None = None
) -> ds.FileSystemDataset | None:
    """Return the files of some partitions, `None` for a table that does not exist.

    Unusual: they are listed by a schema of the partition columns alone. By the whole one Delta would make a condition of
    the least and greatest value of every column of every file, at three times the cost of the list, and few files would
    be left out for it: a file is one day's rows, and the readers' conditions name many ids.
    """
    uri, schema = table_uri(tables_dir, name), arrow_schema(name)
    table = open_table(uri, version=version)
    if table is None:
        return None
    known = pa.schema([schema.field(column) for column in TABLES[name].partition_columns])
    files = table.to_pyarrow_dataset(filesystem=_file_system(uri), schema=known, file_pruning_predicate=partitions)
    return files.replace_schema(schema)


def _parts(files: ds.FileSystemDataset, tables_dir: Path | str, name: str) -> list[ds.Dataset]:
    """Return the files as data sets, in their order."""
    return with_held(files, table_uri(tables_dir, name)) if name in _READ_WHOLE else [files]


def _file_system(uri: str) -> pafs.FileSystem:
    """Return pyarrow's own file system, rooted at the table."""
    if "://" in uri:
        base, root = pafs.FileSystem.from_uri(uri)
    else:
        base, root = pafs.LocalFileSystem(), str(Path(uri).resolve())
    return pafs.SubTreeFileSystem(root, base)
