"""Nothing that the keeper started outlives its owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# A program whose child leads a process group of its own, as an Airflow task does, and neither heeds a Ctrl-C.
FAMILY = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], process_group=0); "
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.fixture
def keeper(tmp_path):
    """Start a keeper with one family; return (keeper, pids of the family)."""
    command = [sys.executable, "-m", "bahe_tasks.engines.airflow_keeper"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "family.log"
    order = {"name": "family", "command": [sys.executable, "-c", FAMILY], "log": str(log)}
    print(json.dumps(order), file=process.stdin, flush=True)
    wait_for(lambda: log.exists() and log.read_text().strip())
    child = psutil.Process(int(log.read_text()))
    yield process, [child.pid, child.parent().pid]
    process.kill()


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
