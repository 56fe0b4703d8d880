"""A home that was moved, or copied: its MLflow database still names the folder where models lay.

MLflow keeps the whole address of every run and model. Of a home's own database they all lie below its artifacts folder, so a
copy would read, and write, models of the original. Whoever reads looks where the home is now; whoever is about to write
makes the database follow first, so that a reader of a home seen under two paths moves nothing under a run of the other.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bahe_tasks.config import LOCK_TIMEOUT_S

_LOG = logging.getLogger(__name__)
_ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)


def is_of_a_home(address: str) -> bool:
    """Tell whether an address is the artifacts folder of a home; another one somebody chose."""
    return address.startswith("file:///") and address.endswith("/mlflow/artifacts")


def address_now(address: str, old: str, new: str) -> str:
    """Return where what lay at `address`, at or below the artifacts folder `old`, is to be looked for in the home whose is `new`.

    Earlier code wrote models of a copy into the original: those stay there, and so does any other address.
    """
    if address == old:
        return new
    if not address.startswith(f"{old}/"):
        return address
    moved = new + address[len(old) :]
    return moved if _is_there(moved) or not _is_there(address) else address


def follow_home(database: Path, new: str) -> None:
    """Make addresses in a home's own MLflow database lie below `new`, its artifacts folder where it is now."""
    if not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S)) as connection, connection:
        known = {row[0] for row in connection.execute("SELECT DISTINCT artifact_location FROM experiments")}
        for old in sorted(address for address in known if address and is_of_a_home(address) and address != new):
            for table, column in _ADDRESSES:
                _move(connection, table, column, old, new)
            _LOG.warning("the home folder was moved or copied: models lie in %s, no longer in %s", new, old)


def _move(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    below = connection.execute(
        f"SELECT DISTINCT {column} FROM {table} WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (old, len(old) + 1, f"{old}/"),
    ).fetchall()
    for (address,) in below:
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (address_now(address, old, new), address)
        )


def _is_there(address: str) -> bool:
    return Path(unquote(urlsplit(address).path)).exists()
