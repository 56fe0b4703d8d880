"""Keeps the programs of an embedded Airflow in one session, so that none of them survives.

Run as `python -m bahe_tasks.engines.airflow_keeper [DESCRIPTOR…]`, at the head of a session of its own. Each line of
standard input is a JSON document {"name", "command", "log"}: a program to start. When the input closes (its owner ended,
however suddenly), when a signal asks for it, or when one of the programs ends, everything in the session is ended.
The programs hold the file descriptors too, such as that of a lock: it lasts as long as any of them, should the keeper be killed.

Unusual: the session, not the process group, is what is ended: Airflow gives every task a group of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

import psutil

GRACE_S = 5.0


class _Stop(Exception):
    """A signal asks the keeper to end."""


def main() -> None:
    """Start what standard input asks for; end all of it when the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    shared = tuple(map(int, sys.argv[1:]))
    try:
        for line in sys.stdin:
            order = json.loads(line)
            threading.Thread(target=_keep, args=(order, shared), daemon=True).start()
    except _Stop:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_session(os.getsid(0), grace_s=GRACE_S)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stop


def _keep(order: dict[str, str | list[str]], shared: tuple[int, ...]) -> None:
    with open(str(order["log"]), "ab") as log:
        program = subprocess.Popen(
            order["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=shared
        )
        program.wait()
    with suppress(BrokenPipeError):
        print(order["name"], flush=True)  # the owner reads which program ended
    os.kill(os.getpid(), signal.SIGTERM)


def members(session: int) -> list[psutil.Process]:
    """Return the live processes of a session, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.pid != os.getpid() and os.getsid(process.pid) == session
            if alive and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def end_session(session: int, *, grace_s: float) -> None:
    """End every process of a session but this one: a request first, force after `grace_s` seconds."""
    for name in ("terminate", "kill"):
        for process in members(session):
            try:
                getattr(process, name)()
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + grace_s
        while members(session) and time.monotonic() < deadline:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
