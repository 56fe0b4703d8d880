"""Processes of this machine that do parts of one task: they end with their parent, and their errors keep their class.

Unusual: arrays mapped from a file are handed to them by its name, so that all map the same file. Pickled as numpy does it,
each would get a copy in its own memory.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
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
    ForkingPickler.register(np.memmap, by_name)
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


def by_name(array: np.memmap) -> tuple[Any, ...]:
    """Reduce an array that maps a file to what opens it again, for pickle; a part of one as any array."""
    if not isinstance(array.base, mmap.mmap):
        return np.asarray(array).__reduce__()  # type: ignore[return-value]
    return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape)


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
