"""Batches prepared ahead of the device: one is made in a thread of its own while the one before is computed with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Yield what `make` makes of each, in order; the next is being made meanwhile. Raises what `make` raises, in its turn."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ready: Future[Made] | None = None
        for one in given:
            following = thread.submit(make, one)
            if ready is not None:
                yield ready.result()
            ready = following
        if ready is not None:
            yield ready.result()
