"""A lock between processes of one machine, which ends with the process that has it."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(lock: Path, *, waiting: str = "") -> Iterator[None]:
    """Hold the lock file, made where it is missing; wait while another process or thread holds it.

    `waiting` is logged where it has to wait.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        if not took_lock(file.fileno()):
            if waiting:
                _LOG.warning(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def took_lock(descriptor: int) -> bool:
    """Take the lock of a file; tell whether that was possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
