"""The MLflow database of a home: it is there whole, or not at all.

Unusual: MLflow makes its tables by many migrations, and one that was killed between two of them can never go on. So they
are made in a file of another name, which takes the database's name when it is whole.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite would apply to a database of that name


def make_database(database: Path) -> None:
    """Make an empty MLflow database unless there is one. For whoever holds the lock of the registry's folder.

    One that never held an experiment, not even MLflow's first, was cut short while it was made: it is made anew.
    """
    if _was_ever_opened(database):
        return
    from mlflow.db import upgrade

    half = database.with_name(f"{database.name}.new")
    _remove(half)
    upgrade.main([f"sqlite:///{half}"], standalone_mode=False)
    _remove(database)
    os.replace(half, database)


def _was_ever_opened(database: Path) -> bool:
    if not database.is_file():
        return False
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return False
        return bool(connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone())


def _remove(database: Path) -> None:
    for name in (database.name, *(f"{database.name}{end}" for end in _BESIDE)):
        database.with_name(name).unlink(missing_ok=True)
