"""Small data files of a Delta table merged into large ones, and files that no kept version reads deleted.

Both are Delta's own maintenance, OPTIMIZE and VACUUM, by delta-rs. Merging makes one commit that says the data did not
change; it names no partitions, so it is nobody's record (`stores.partition_records`), and an older version still
reads the files it named. Where there is nothing to merge, or to delete, nothing is committed. The log is left whole.

Unusual: a file never spans partitions, so a table partitioned by day keeps a file a day.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from deltalake import DeltaTable

from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.delta_writes import TABLE_PROPERTIES, again_after_conflict, writer_properties

TARGET_BYTES = 128 << 20
"""Files grow up to this size, Parquet's usual one: read at full speed, and small beside a reader's memory."""


class Compacted(NamedTuple):
    """What was done to a table."""

    files_before: int
    files_after: int
    deleted_files: int


def compact_table(
    tables_dir: Path | str, name: str, *, delete_after_days: int | None = None, pinned: Collection[int] = ()
) -> Compacted | None:
    """Merge the small files of each partition; return what was done, `None` for a table that does not exist.

    `delete_after_days`: also delete files that have been out of the table for so many days, unless one of the versions
    `pinned` reads them. It also takes files of writers that never committed; one at work for so long would lose its own.
    """
    uri = table_uri(tables_dir, name)
    if not DeltaTable.is_deltatable(uri):
        return None
    before = len(DeltaTable(uri).file_uris())
    table = again_after_conflict(lambda: _merged(uri, name))
    deleted = [] if delete_after_days is None else _vacuumed(table, delete_after_days, pinned)
    return Compacted(before, len(table.file_uris()), len(deleted))


def _merged(uri: str, name: str) -> DeltaTable:
    """Merge and return the table."""
    table = DeltaTable(uri)
    table.optimize.compact(target_size=TARGET_BYTES, max_concurrent_tasks=1, writer_properties=writer_properties(name))
    return table


def _vacuumed(table: DeltaTable, delete_after_days: int, pinned: Collection[int]) -> list[str]:
    """Delete and return what may go. It is listed first: Delta would commit even where nothing is to go, or is gone already."""
    missing = TABLE_PROPERTIES.items() - table.metadata().configuration.items()
    if missing:  # of a table made before a checkpoint had to remember for so long
        table.alter.set_table_properties(dict(missing))
    for dry_run in (True, False):
        files = table.vacuum(
            delete_after_days * 24,
            dry_run=dry_run,
            enforce_retention_duration=False,  # it would ask for a week also where a caller knows better
            full=True,
            keep_versions=sorted(version for version in pinned if version <= table.version()),
        )
        if dry_run:
            found = [file for file in files if _is_there(table, file)]
        if not found:
            break
    return found


def _is_there(table: DeltaTable, file: str) -> bool:
    """Tell whether a file of a table is there still; of a table that is no local folder, yes."""
    folder = Path(unquote(urlsplit(table.table_uri).path))
    return not folder.is_dir() or (folder / unquote(file)).exists()
