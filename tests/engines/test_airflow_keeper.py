"""Nothing that the keeper started outlives its owner."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from bahe_tasks.engines.airflow_server import _end

# A program whose child leads a process group of its own, as an Airflow task does, and neither heeds a Ctrl-C.
FAMILY = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], process_group=0); "
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.fixture
def keeper(tmp_path):
    """Start a keeper with one family, sharing a lock on tmp_path/lock; return (keeper, pids of the family)."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", "bahe_tasks.engines.airflow_keeper", str(lock.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
    log = tmp_path / "family.log"
    order = {"name": "family", "command": [sys.executable, "-c", FAMILY], "log": str(log)}
    print(json.dumps(order), file=process.stdin, flush=True)
    wait_for(lambda: log.exists() and log.read_text().strip())
    child = psutil.Process(int(log.read_text()))
    family = [child, child.parent()]
    yield process, [member.pid for member in family]
    process.kill()
    for member in family:  # a killed keeper ends nothing
        with suppress(psutil.NoSuchProcess):
            member.kill()


def wait_for(condition, *, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def gone(pids):
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_when_the_owner_is_gone_everything_in_the_session_ends(keeper):
    process, family = keeper
    process.stdin.close()  # what the system does when the owner is killed
    process.wait(timeout=20)
    wait_for(lambda: gone(family), seconds=2)


def test_a_signal_ends_everything_in_the_session(keeper):
    process, family = keeper
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    wait_for(lambda: gone(family), seconds=2)


def test_a_ctrl_c_is_left_to_the_owner(keeper):
    process, family = keeper
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    assert not gone(family)


def test_when_one_program_ends_the_keeper_names_it_and_ends_the_others(keeper):
    process, family = keeper
    order = {"name": "short", "command": [sys.executable, "-c", ""], "log": os.devnull}
    print(json.dumps(order), file=process.stdin, flush=True)
    assert process.stdout.readline().strip() == "short"
    process.wait(timeout=20)
    wait_for(lambda: gone(family), seconds=2)


def is_locked(path):
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_a_killed_keeper_leaves_holds_the_lock_until_its_owner_ends_it(keeper, tmp_path):
    process, family = keeper
    process.kill()
    process.wait(timeout=20)
    assert not gone(family)
    assert is_locked(tmp_path / "lock")
    _end(process)
    assert gone(family)
    assert not is_locked(tmp_path / "lock")
