"""Steps of a job that do not wait for each other, at once: most of a small one is planning in one thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_AT_ONCE = 5


def side_by_side(*steps: Callable[[], Any]) -> list[Any]:
    """Run the steps at once, wait for all, and return their results in order; the first error is raised after that."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        futures = [pool.submit(step) for step in steps]
    return [future.result() for future in futures]
