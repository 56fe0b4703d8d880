"""Delta tables without Spark: read rows, replace whole partitions, and ask which partitions are recorded.

Every write but that of the dictionary of texts is one overwrite commit limited by a predicate, so a write done twice
leaves the same rows. The commit carries one JSON document, `{"partitions": {key: {"input_fingerprint", "counts"}}}`; the newest commit
that names a partition tells its state. Spark writes the same document, so it does not matter who wrote a partition.

Unusual: files are read through pyarrow's own file systems. The file system deltalake would supply is written in Python
and is called from threads that outlive the interpreter: a process that has read a table then aborts at its exit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.opened_tables import open_table

COMMIT_METADATA_KEY = "userMetadata"
"""Key under which a commit's JSON document stands, in Spark and in delta-rs."""

TABLE_PROPERTIES = {"delta.logRetentionDuration": "interval 36500 days"}
"""The commits are the record of what was written: they are never cleaned away."""

_ROWS_AT_ONCE = 8192
_STREAMED: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20}  # else a whole row group is held
_ROWS_A_GROUP = 1 << 16
"""So that a reader of a few thousand rows at a time does not hold many more, or passes over those it does not want."""
_COMMIT_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.2


Rows: TypeAlias = pa.Table | Callable[[], Iterable[pa.Table]]
"""Rows to write: a table, or what yields them part by part, again whenever it is called."""


class RowsRefusedError(ValueError):
    """Rows that do not fit the table, or lie outside the partitions to be replaced."""


@dataclass(frozen=True)
class PartitionRecord:
    """What the newest commit naming a partition says: its version, its time (UTC), what was read, what was counted."""

    version: int
    timestamp: datetime
    input_fingerprint: str
    counts: dict[str, Any]


_Cached = tuple[int, dict[str, PartitionRecord]]
_records: dict[tuple[str, str], _Cached] = {}  # commits never change, so what was read of them stays true


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
    """Return the rows of some partitions that satisfy `filters`, in no particular order.

    `partitions` is SQL over the partition columns, for example "dt >= '2013-09-01' AND dt <= '2013-09-24'": other
    partitions' files are not even listed, so a read costs the same however old the table is. `filters` may name any
    column. `columns` are all columns unless given. A table that does not exist is an empty one with the right schema.
    """
    schema = arrow_schema(name)
    dataset = _dataset(tables_dir, name, partitions=partitions, version=version)
    if dataset is None:
        return schema.empty_table().select(list(columns or schema.names))
    return dataset.to_table(columns=list(columns or schema.names), filter=filters)


def scan_table(
    tables_dir: Path | str, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None
) -> Iterator[pa.RecordBatch]:
    """Yield what `read_table` would return, in no particular order: a few files at a time are held, never the table."""
    dataset = _dataset(tables_dir, name, partitions=partitions, version=None)
    if dataset is not None:
        yield from dataset.to_batches(columns=list(columns), filter=filters, fragment_readahead=2)


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


def replace_partitions(
    tables_dir: Path | str,
    name: str,
    rows: Rows,
    *,
    predicate: str,
    partitions: Mapping[str, Mapping[str, Any]],
) -> int:
    """Replace the rows that satisfy `predicate` by `rows` in one commit and return the table version it made.

    `predicate` is SQL over the partition columns, for example "dt = '2013-09-24'". `partitions` goes into the commit:
    per partition key its `input_fingerprint` and `counts`. No rows at all is a valid write: it empties the partitions
    and records that. The table is created when it is not there. Writers of other partitions may commit meanwhile.
    Raises `RowsRefusedError` when a row does not satisfy the predicate or does not have the table's columns.
    """
    return _commit(tables_dir, name, rows, partitions, replaced=predicate)


def append_rows(tables_dir: Path | str, name: str, rows: Rows, *, partitions: Mapping[str, Mapping[str, Any]]) -> int:
    """Add rows that are known not to be in the table, in one commit, and return the table version it made."""
    return _commit(tables_dir, name, rows, partitions, replaced=None)


def _commit(
    tables_dir: Path | str,
    name: str,
    rows: Rows,
    partitions: Mapping[str, Mapping[str, Any]],
    *,
    replaced: str | None,
) -> int:
    """Write rows in place of those that satisfy `replaced`, of none without."""
    uri = table_uri(tables_dir, name)
    fitted = _fitted(rows, uri, name) if isinstance(rows, pa.Table) else None
    raised: list[BaseException] = []
    how: dict[str, Any] = {"mode": "append"} if replaced is None else {"mode": "overwrite", "predicate": replaced}
    document = json.dumps({"partitions": {key: dict(entry) for key, entry in partitions.items()}}, sort_keys=True)
    for attempt in range(1, _COMMIT_ATTEMPTS + 1):
        try:
            table = _open_or_create(uri, name)
            write_deltalake(
                table,
                _batches(rows, uri, name, raised) if fitted is None else fitted,
                schema_mode="merge",  # a table written before a column was added gets it
                commit_properties=CommitProperties(custom_metadata={COMMIT_METADATA_KEY: document}),
                writer_properties=WriterProperties(max_row_group_size=_ROWS_A_GROUP),
                **how,
            )
            return table.version()
        except CommitFailedError:
            if attempt == _COMMIT_ATTEMPTS:
                raise
            time.sleep(_RETRY_PAUSE_S * attempt)
        except DeltaError as error:
            if raised:
                raise raised[0] from error
            if "failed validation check" in str(error):
                raise RowsRefusedError(f"rows for {uri} lie outside {replaced}: {error}") from error
            raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _batches(
    parts: Callable[[], Iterable[pa.Table]], uri: str, name: str, raised: list[BaseException]
) -> pa.RecordBatchReader:
    """Return a reader of the rows; what goes wrong is put into `raised`, since Delta passes on the text of it alone."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for rows in parts():
                yield from _fitted(rows, uri, name).to_batches()
        except Exception as error:
            raised.append(error)
            raise

    return pa.RecordBatchReader.from_batches(arrow_schema(name), batches())


def _fitted(rows: pa.Table, uri: str, name: str) -> pa.Table:
    """Return rows with just the columns of the table."""
    schema = arrow_schema(name)
    try:
        return rows.select(schema.names).cast(schema)
    except (KeyError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise RowsRefusedError(
            f"rows for {uri} do not have the columns of {name} in bahe_tasks.schemas: {error}"
        ) from error


def partition_records(tables_dir: Path | str, name: str) -> dict[str, PartitionRecord]:
    """Return, per partition key, what the newest commit naming it recorded; nothing for a table that does not exist.

    Commits read once are remembered in the process; only newer ones are read again.
    """
    uri = table_uri(tables_dir, name)
    table = open_table(uri)
    if table is None:
        return {}
    newest = table.version()
    identity = (uri, str(table.metadata().id))
    seen, records = _records.get(identity, (-1, {}))
    if newest > seen:
        # Another thread may have brought the table further meanwhile: its newest commits come first.
        commits = [c for c in table.history(table.version() - seen) if c["version"] <= newest]
        records = records | _records_of(sorted(commits, key=lambda commit: commit["version"]))
        _records[identity] = (newest, records)
    return dict(records)


def _records_of(commits: Sequence[Mapping[str, Any]]) -> dict[str, PartitionRecord]:
    """Return the records of commits given oldest first. A commit with no document of ours says nothing."""
    records: dict[str, PartitionRecord] = {}
    for commit in commits:
        try:
            document = json.loads(commit.get(COMMIT_METADATA_KEY) or "{}")
        except json.JSONDecodeError:
            continue
        named = document.get("partitions", {}) if isinstance(document, dict) else {}
        for key, entry in named.items():
            records[key] = PartitionRecord(
                version=commit["version"],
                timestamp=datetime.fromtimestamp(commit["timestamp"] / 1000, tz=UTC),
                input_fingerprint=entry["input_fingerprint"],
                counts=entry.get("counts", {}),
            )
    return records


def _open_or_create(uri: str, name: str) -> DeltaTable:
    """Return the table; a new one has reader version 1 and writer version 2, which Spark and delta-rs both write."""
    return open_table(uri) or DeltaTable.create(
        uri,
        schema=arrow_schema(name),
        mode="ignore",  # another writer may have created it a moment ago: then it is that table
        partition_by=list(TABLES[name].partition_columns),
        configuration=TABLE_PROPERTIES,
    )


def _dataset(
    tables_dir: Path | str, name: str, *, partitions: str | None, version: int | None = None
) -> ds.Dataset | None:
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


def _file_system(uri: str) -> pafs.FileSystem:
    """Return pyarrow's own file system, rooted at the table."""
    if "://" in uri:
        base, root = pafs.FileSystem.from_uri(uri)
    else:
        base, root = pafs.LocalFileSystem(), str(Path(uri).resolve())
    return pafs.SubTreeFileSystem(root, base)
