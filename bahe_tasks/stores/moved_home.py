"""A home that was moved, or copied: its MLflow database still names the folder where models lay.

MLflow keeps the whole address of every run and model. Of a home's own database they all lie below its artifacts folder, so a
copy would read, and write, models of the original.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOG = logging.getLogger(__name__)
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_home(database: Path, old: str, new: str) -> None:
    """Make addresses below `old`, the artifacts folder of a home elsewhere, lie below `new`; of models that are there.

    Earlier code wrote models of a copy into the original: those stay. So does an address of another kind, which somebody chose.
    """
    if old == new or not (old.startswith("file:///") and old.endswith("/mlflow/artifacts")):
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, column in _ADDRESSES:
            below = connection.execute(
                f"SELECT DISTINCT {column} FROM {table} WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (old, len(old) + 1, f"{old}/"),
            ).fetchall()
            for (address,) in below:
                moved = new + address[len(old) :]
                if address == old or _is_there(moved) or not _is_there(address):
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (moved, address))
    _LOG.warning("the home folder was moved or copied: models are looked for in %s, no longer in %s", new, old)


def _is_there(address: str) -> bool:
    return Path(unquote(urlsplit(address).path)).exists()
