"""The MLflow database of a home: it is there whole, or not at all.

Unusual: MLflow sets how long it waits for a lock anew at each step, to 20 s that nothing can change; the statement itself is
changed on its way to the database.

Unusual: MLflow makes its tables by many migrations, and one that was killed between two of them can never go on. So they
are made in a file of another name, which takes the database's name when it is whole.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bahe_tasks.config import LOCK_TIMEOUT_S

_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite would apply to a database of that name


def make_database(database: Path) -> None:
    """Make an empty MLflow database unless there is one. For whoever holds the lock of the registry's folder.

    One without any experiment, even MLflow's first, and any model was cut short while it was made: it is made anew.
    """
    if _holds_anything(database):
        return
    from mlflow.db import upgrade

    half = database.with_name(f"{database.name}.new")
    _remove(half)
    upgrade.main([f"sqlite:///{half}"], standalone_mode=False)
    _remove(database)
    os.replace(half, database)


def wait_for_locks() -> None:
    """Make MLflow in this process wait `LOCK_TIMEOUT_S` for a locked SQLite database, as an address with that timeout alone does not."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "before_cursor_execute", _wait_longer):
        event.listen(Engine, "before_cursor_execute", _wait_longer, retval=True)


def _wait_longer(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    if statement.startswith("PRAGMA busy_timeout ="):
        statement = f"PRAGMA busy_timeout = {1000 * LOCK_TIMEOUT_S}"
    return statement, parameters


def _holds_anything(database: Path) -> bool:
    if not database.is_file():
        return False
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        asked = tables & {"experiments", "registered_models"}
        return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in asked)


def _remove(database: Path) -> None:
    for name in (database.name, *(f"{database.name}{end}" for end in _BESIDE)):
        database.with_name(name).unlink(missing_ok=True)
