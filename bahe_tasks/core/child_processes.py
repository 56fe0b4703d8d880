"""Processes of this machine that do parts of one task: they end with their parent, and their errors keep their class."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch.distributed import DistError
from torch.multiprocessing.spawn import ProcessException

_SECONDS_BETWEEN_LOOKS = 0.5


def run_processes(
    work: Callable[..., None], arguments: tuple[Any, ...], *, count: int, meanwhile: Callable[[], None] | None = None
) -> None:
    """Run work(rank, *arguments) in `count` processes and wait, calling `meanwhile` now and then.

    An error of one ends all and is raised here: that of the rank that failed by itself, not of one that missed it.
    """
    with tempfile.TemporaryDirectory(prefix="bahe-ranks-") as name:
        folder = Path(name)
        guard = (os.getpid(), torch.get_num_threads(), work, folder, arguments)
        running = multiprocessing.spawn(_guarded, guard, nprocs=count, join=False)
        try:
            while not running.join(timeout=_SECONDS_BETWEEN_LOOKS):
                if meanwhile is not None:
                    meanwhile()
        except ProcessException as raised:
            errors = [pickle.loads(file.read_bytes()) for file in sorted(folder.glob("*.error"))]
            own = [error for error in errors if not isinstance(error, DistError)]
            raise ([*own, *errors] or [raised])[0] from raised
        finally:
            for process in running.processes:
                process.terminate()


def _guarded(
    rank: int, parent: int, num_threads: int, work: Callable[..., None], folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(num_threads)  # the parent's, as equal bits ask for
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work(rank, *arguments)
    except Exception as error:
        half = folder / f"{rank}.writing"
        half.write_bytes(pickle.dumps(error))  # read back at once by the parent, from a folder of its own
        half.rename(folder / f"{rank}.error")
        raise


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed task must not leave some that go on writing."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
