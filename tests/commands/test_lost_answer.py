"""An answer that standard output does not take is told in a sentence, with exit status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
MAIN = "from bahe_tasks.cli import main; main()"


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


def run(stdout, *words, unbuffered=""):
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    try:
        return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    finally:
        os.close(stdout)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "bahe.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_document_into_a_pipe_that_nobody_reads(home, unbuffered):
    ended = run(closed_pipe(), "status", "--json", "--home", home, unbuffered=unbuffered)
    said = "error: the answer cannot be written to standard output: Broken pipe\n"
    assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("words", [["status", "--json"], ["status"]])
def test_an_answer_onto_a_disk_that_is_full(home, words):
    ended = run(os.open(FULL, os.O_WRONLY), *words, "--home", home)
    said = "error: the answer cannot be written to standard output: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_an_error_onto_a_disk_that_is_full_is_told_nevertheless(home):
    ended = run(os.open(FULL, os.O_WRONLY), "metrics", "--json", "--from", "x", "--home", home)
    assert (ended.returncode, "error: 'x' is not a day" in ended.stderr, "Traceback" in ended.stderr) == (
        1,
        True,
        False,
    )
