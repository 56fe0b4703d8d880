"""Batches that do not wait for each other, each on a thread of its own.

Operations of a batch that fits a processor's caches take some hundred microseconds. Parted among torch's threads each of
them ends with a wait for the slowest thread, which is long where another program runs; a whole batch a thread waits once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Barrier, Lock
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


_starting = Lock()  # of a pool: two at once would take what the other set for the caller's number


def batch_a_thread(make: Callable[[Given], Made], given: Sequence[Given], *, device: torch.device) -> Iterator[Made]:
    """Yield what `make` makes of each, in order, on as many threads as torch has; on a GPU and for one batch on none.

    Raises what `make` raises, in its turn.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(given) == 1:
        yield from map(make, given)
        return
    contexts = [copy_context() for _ in given]  # one context cannot be entered by two threads at once
    with ThreadPoolExecutor(threads) as pool:
        _leave_one_thread_each(pool, threads)
        yield from pool.map(lambda context, one: context.run(make, one), contexts, given)


def _leave_one_thread_each(pool: ThreadPoolExecutor, threads: int) -> None:
    """Let each of the pool's threads have one of torch's.

    The number is each thread's own, but a thread begins, at its first use of torch, with what was set last in any thread. So
    all threads of the pool begin at once, and the caller's number is what was set last again before they compute.
    """
    all_here = Barrier(threads)

    def have_one() -> None:
        all_here.wait()
        torch.set_num_threads(1)
        torch.get_num_threads()  # the thread's first use

    with _starting:
        for begun in [pool.submit(have_one) for _ in range(threads)]:
            begun.result()
        torch.set_num_threads(threads)
