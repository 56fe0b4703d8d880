import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from bahe_tasks.core.child_processes import run_processes


class NamedError(ValueError):
    pass


def fails_on_one(rank, folder):
    (Path(folder) / str(rank)).touch()
    if rank == 1:
        raise NamedError("rank 1 says why")


def test_every_rank_runs_and_an_error_keeps_its_class_and_message(tmp_path):
    with pytest.raises(NamedError, match=r"^rank 1 says why$"):
        run_processes(fails_on_one, (str(tmp_path),), count=2)
    assert (tmp_path / "1").exists()


def looks(rank, whole, part, folder):
    found = f"{type(whole).__name__} {whole.filename} {whole.sum()} {part.sum()}"
    (Path(folder) / f"{rank}.found").write_text(found)


def test_an_array_mapped_from_a_file_is_mapped_again_and_a_part_of_one_is_copied(tmp_path):
    np.arange(6, dtype=np.float32).tofile(tmp_path / "array")
    mapped = np.memmap(tmp_path / "array", np.float32, mode="r")
    run_processes(looks, (mapped, mapped[4:], str(tmp_path)), count=1)
    assert (tmp_path / "0.found").read_text() == f"memmap {tmp_path / 'array'} 15.0 9.0"


def waits(rank, folder):
    (Path(folder) / f"{rank}.pid").write_text(str(os.getpid()))
    time.sleep(60)


def test_processes_end_when_their_parent_is_killed_even_where_interrupts_are_ignored(tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path.insert(0, sys.argv[2])\n"
        "from test_child_processes import waits; from bahe_tasks.core.child_processes import run_processes\n"
        "if __name__ == '__main__': run_processes(waits, (sys.argv[1],), count=1)"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, script, tmp_path, Path(__file__).parent], env=environment)
    pid_file = tmp_path / "0.pid"
    deadline = time.monotonic() + 120
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline, "the process did not start"
        time.sleep(0.1)
    child = psutil.Process(int(pid_file.read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child.wait(timeout=20)
    assert not child.is_running()
