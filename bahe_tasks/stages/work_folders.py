"""Folders of files under HOME/work that a day makes for itself: whole or not there, found again, removed when it is done.

Unusual: a folder being written is locked by its process, so that what a killed one left is told from what is in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TypeVar

from bahe_tasks.config import Config

_WRITING = "writing"
T = TypeVar("T")


@contextmanager
def scratch_folder(day: date, config: Config) -> Iterator[Path]:
    """Make a folder of this process alone, and remove it at the end; files in it that are mapped stay readable."""
    parent = _parent(config)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{day}-{_WRITING}-", dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def kept_folder(day: date, name: str, config: Config, *, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Return what `read` makes of the day's folder of that name, which says all that decides its files.

    It is written unless it is there and can be read: `read` raises `OSError` or `ValueError` where it cannot. Other
    folders of the day are removed then, since what decided them has changed. Of several processes that write one at once
    the first to end gives the folder.
    """
    folder = _parent(config) / f"{day}-{name}"
    with suppress(OSError, ValueError):
        return read(folder)
    forget_day(day, config)
    with scratch_folder(day, config) as half:
        write(half)
        for file in half.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())  # a name that survives a power cut must not stand for bytes that did not
        with suppress(OSError):  # another process was first
            half.rename(folder)
    return read(folder)


def forget_day(day: date, config: Config) -> None:
    """Remove the folders of the day and of days before it, but for those that a living process writes."""
    for folder in _parent(config).glob("????-??-??-*"):
        if folder.name[:10] <= str(day) and not _is_written(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_written(folder: Path) -> bool:
    if not folder.name[11:].startswith(_WRITING):
        return False
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return True  # gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _parent(config: Config) -> Path:
    return config.home / "work" / "days"
