"""Batches that do not wait for each other, each on a thread of its own.

Operations of a batch that fits a processor's caches take some hundred microseconds. Parted among torch's threads each of
them ends with a wait for the slowest thread, which is long where another program runs; a whole batch a thread waits once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def batch_a_thread(make: Callable[[Given], Made], given: Sequence[Given], *, device: torch.device) -> Iterator[Made]:
    """Yield what `make` makes of each, in order, on as many threads as torch has; on a GPU and for one batch on none.

    Raises what `make` raises, in its turn.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(given) == 1:
        yield from map(make, given)
        return
    contexts = [copy_context() for _ in given]  # one context cannot be entered by two threads at once
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(lambda context, one: context.run(make, one), contexts, given)
    finally:
        torch.set_num_threads(threads)  # threads made later would begin with those of the newest call
