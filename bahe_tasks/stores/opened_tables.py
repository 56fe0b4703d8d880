"""Delta tables opened once in a process and followed from there: a log costs more to open the longer it is."""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

_opened: dict[str, tuple[tuple[int, int], DeltaTable]] = {}  # address → first commit's file, table


class UnreadableTableError(DeltaError):
    """A table whose log cannot be read; the message names the table."""


def open_table(uri: str, *, version: int | None = None) -> DeltaTable | None:
    """Return the table at its newest version, or at `version`; `None` when it does not exist.

    A table opened once in this process reads only the commits made since: else a table costs more the older it is.
    Raises `UnreadableTableError`.
    """
    first_commit = _first_commit(uri)
    known = _opened.get(uri)
    if version is None and known is not None and known[0] == first_commit:
        if _commit_file(uri, known[1].version() + 1).exists():  # to ask Delta costs the more the longer the log is
            try:
                known[1].update_incremental()
            except DeltaError as error:
                raise _unreadable(uri, error) from error
        return known[1]
    try:
        table = DeltaTable(uri, version=version)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise _unreadable(uri, error) from error
    if version is None and first_commit is not None:
        _opened[uri] = (first_commit, table)
    return table


def _unreadable(uri: str, error: DeltaError) -> UnreadableTableError:
    """Return what names the table; of Delta's own message the first line, below which it tells its stack."""
    reason, *_ = str(error).splitlines() or [""]
    return UnreadableTableError(
        f"the table {uri} cannot be opened ({reason}); a commit in its _delta_log may be damaged: restore it from a copy of the home"
    )


def _first_commit(uri: str) -> tuple[int, int] | None:
    """Return what tells a table from one made anew in its place, `None` where that cannot be told."""
    try:
        status = _commit_file(uri, 0).stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _commit_file(uri: str, version: int) -> Path:
    """Return where the log has a commit; versions are whole numbers without a gap."""
    return Path(uri) / "_delta_log" / f"{version:020}.json"
