"""Processes that torchrun started, on one host or on several: the first one does a task, the others do their parts of it.

All of them `join`. The first (rank 0) goes on with its task; what it shares (`run_shared`) goes to all, and the others `follow`
it until it calls `release`. Where nothing was launched, what is shared goes to processes of this machine, started for it.

Unusual: arrays mapped from files are handed over by name, so every host must see the files of the first one under the
same paths.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bahe_tasks.core.child_processes import by_name, run_processes

_LONGEST_WAIT = timedelta(days=30)
"""Of the others for work: whatever else the first one has to do comes in between."""

_SECONDS_BETWEEN_CALLS = 0.5


class LostProcessesError(RuntimeError):
    """The others are in the middle of work that the first one gave up."""


class _Joined:
    """This process among those that torchrun started."""

    def __init__(self) -> None:
        self.waiting: Any = dist.new_group(timeout=_LONGEST_WAIT, backend="gloo")
        self.in_step = True


_joined: _Joined | None = None


def join() -> int:
    """Meet the other processes that torchrun started, and take a GPU of this host; return this process's rank."""
    global _joined
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(dist.get_node_local_rank() % gpus)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    _joined = _Joined()
    return dist.get_rank()


def launched_processes() -> int:
    """Return how many processes torchrun started; 0 where it did not start this one."""
    return dist.get_world_size() if _joined else 0


def run_shared(
    work: Callable[..., None], arguments: tuple[Any, ...], *, count: int, meanwhile: Callable[[], None] | None = None
) -> None:
    """Run work(rank, *arguments) in all launched processes, or in `count` new ones, and wait, calling `meanwhile` now and then.

    `count` is `launched_processes()` where there are any. An error of the first one's own part is raised here; one of
    another launched process ends that, and torchrun then ends all. Raises `LostProcessesError` after an earlier error.
    """
    if _joined is None:
        run_processes(work, arguments, count=count, meanwhile=meanwhile)
        return
    if not _joined.in_step:
        raise LostProcessesError(
            "an earlier error left the processes that torchrun started at different places: run again"
        )
    _joined.in_step = False
    dist.broadcast_object_list([_pickled((work, arguments))], group=_joined.waiting)
    with _called_now_and_then(meanwhile):
        work(0, *arguments)
        dist.barrier(group=_joined.waiting)
    _joined.in_step = True


def follow() -> None:
    """Do the parts of this process, which is not the first, until the first one calls `release`."""
    assert _joined is not None
    while True:
        told: list[Any] = [None]
        dist.broadcast_object_list(told, group=_joined.waiting)
        if told[0] is None:
            break
        work, arguments = pickle.loads(told.pop())  # from the first process of this very run
        work(dist.get_rank(), *arguments)
        dist.barrier(group=_joined.waiting)
    _leave()


def release() -> None:
    """Let the others end, and leave them. After an error in `run_shared` they are left where they are: torchrun ends them."""
    if _joined is not None and _joined.in_step:
        dist.broadcast_object_list([None], group=_joined.waiting)
        _leave()


def _leave() -> None:
    global _joined
    _joined = None
    dist.destroy_process_group()


def _pickled(document: Any) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = {**copyreg.dispatch_table, np.memmap: by_name}
    pickler.dump(document)
    return file.getvalue()


@contextmanager
def _called_now_and_then(call: Callable[[], None] | None) -> Iterator[None]:
    ended = threading.Event()

    def calls() -> None:
        while call is not None and not ended.wait(_SECONDS_BETWEEN_CALLS):
            call()

    thread = threading.Thread(target=calls, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
