"""The MLflow database of a home: a kill while it is made leaves the home usable, a lock on it is waited for."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from bahe_tasks.config import Config
from bahe_tasks.stores.home_database import make_database
from bahe_tasks.stores.model_registry import connect, versions

_KILLED = """
import os, sys
from pathlib import Path
import alembic.migration
from bahe_tasks.config import Config
from bahe_tasks.stores.model_registry import connect
taken = 0
def on_step(**_):
    global taken
    taken += 1
    if taken == 5:
        os._exit(9)
original = alembic.migration.MigrationContext.__init__
def counted(self, dialect, connection, opts, environment_context=None):
    original(self, dialect, connection, opts, environment_context)
    self.on_version_apply_callbacks = (on_step,)
alembic.migration.MigrationContext.__init__ = counted
connect(Config(home=Path(sys.argv[1])))
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mlflow"
    made.mkdir()
    return made


def test_a_home_whose_first_process_was_killed_while_it_made_the_database_is_usable(tmp_path, folder):
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert not (folder / "mlflow.db").exists()
    assert (folder / "mlflow.db.new").exists()
    assert versions(connect(Config(home=tmp_path))) == []
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "mlflow.db"]


def test_what_was_left_half_made_under_either_name_does_not_matter(tmp_path, folder):
    (folder / "mlflow.db.new").write_bytes(b"half")
    (folder / "mlflow.db.new-journal").write_bytes(b"half")
    with sqlite3.connect(folder / "mlflow.db") as cut_short:  # by code that made it in place
        cut_short.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        cut_short.execute("CREATE TABLE trace_info (request_id TEXT)")
    (folder / "mlflow.db-journal").write_bytes(b"")
    assert versions(connect(Config(home=tmp_path))) == []


@pytest.mark.parametrize("table", ["experiments", "registered_models"])
def test_a_database_that_is_in_use_is_left_as_it_is(folder, table):
    with sqlite3.connect(folder / "mlflow.db") as in_use:
        in_use.execute(f"CREATE TABLE {table} (name TEXT)")
        in_use.execute(f"INSERT INTO {table} VALUES ('one')")
    before = (folder / "mlflow.db").read_bytes()
    make_database(folder / "mlflow.db")
    assert (folder / "mlflow.db").read_bytes() == before


def test_a_database_that_is_locked_is_waited_for_when_it_is_opened(tmp_path, folder):
    make_database(folder / "mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        end = threading.Timer(6, other.rollback)  # MLflow by itself gives up after five seconds
        end.start()
        assert MlflowClient(tracking_uri=Config(home=tmp_path).tracking_uri).search_experiments()
        end.join()


def test_each_step_of_mlflow_waits_for_a_locked_database_for_a_minute(registry):
    asked = set()

    def note(connection, cursor, statement, *_):
        if "busy_timeout" in statement:
            asked.add(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        registry.client.search_experiments()
        registry.client.search_model_versions()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert asked == {"PRAGMA busy_timeout = 60000"}
