"""Rows into Delta tables without Spark, one commit at a time.

Every write but that of the dictionary of texts is one overwrite commit limited by a predicate, so a write done twice
leaves the same rows. The commit carries one JSON document, `{"partitions": {key: {"input_fingerprint", "counts"}}}`
(`stores.partition_records`). Spark writes the same document, so it does not matter who wrote a partition.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.opened_tables import open_table
from bahe_tasks.stores.partition_records import COMMIT_METADATA_KEY

TABLE_PROPERTIES = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
"""The commits are the record of what was written: they are never cleaned away. Nor does a checkpoint forget when a file left the
table: deleting it (`stores.compact_tables`) goes by that, and by how old it is where nothing is known of it."""

_ROWS_A_GROUP = 1 << 16
"""So that a reader of a few thousand rows at a time does not hold many more, or passes over those it does not want."""
_ROWS_A_GROUP_OF_KEYS = 1 << 12
"""Of the running sums, of which a day reads some keys (`spark_jobs.derived.stored_state`)."""
_COMMIT_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.2

Made = TypeVar("Made")
Rows: TypeAlias = pa.Table | Callable[[], Iterable[pa.Table]]
"""Rows to write: a table, or what yields them part by part, again whenever it is called."""


class RowsRefusedError(ValueError):
    """Rows that do not fit the table, or lie outside the partitions to be replaced."""


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

    def commit() -> int:
        table = _open_or_create(uri, name)
        write_deltalake(
            table,
            _batches(rows, uri, name, raised) if fitted is None else fitted,
            schema_mode="merge",  # a table written before a column was added gets it
            commit_properties=CommitProperties(custom_metadata={COMMIT_METADATA_KEY: document}),
            writer_properties=writer_properties(name),
            **how,
        )
        return table.version()

    try:
        return again_after_conflict(commit)
    except CommitFailedError:
        raise
    except DeltaError as error:
        if raised:
            raise raised[0] from error
        if "failed validation check" in str(error):
            raise RowsRefusedError(f"rows for {uri} lie outside {replaced}: {error}") from error
        raise


def again_after_conflict(commit: Callable[[], Made]) -> Made:
    """Return what `commit` returns; where another writer came between it is called again, some times."""
    for attempt in range(1, _COMMIT_ATTEMPTS):
        try:
            return commit()
        except CommitFailedError:
            time.sleep(_RETRY_PAUSE_S * attempt)
    return commit()


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


def writer_properties(name: str) -> WriterProperties:
    """Return how files are written: without a dictionary of `key`, of which no two rows of a partition have the same."""
    plain = {"key": ColumnProperties(dictionary_enabled=False)} if "key" in arrow_schema(name).names else None
    size = _ROWS_A_GROUP_OF_KEYS if name == "running_sums" else _ROWS_A_GROUP
    return WriterProperties(max_row_group_size=size, column_properties=plain)


def _open_or_create(uri: str, name: str) -> DeltaTable:
    """Return the table; a new one has reader version 1 and writer version 2, which Spark and delta-rs both write."""
    return open_table(uri) or DeltaTable.create(
        uri,
        schema=arrow_schema(name),
        mode="ignore",  # another writer may have created it a moment ago: then it is that table
        partition_by=list(TABLES[name].partition_columns),
        configuration=TABLE_PROPERTIES,
    )
