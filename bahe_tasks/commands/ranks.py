"""A verb under torchrun: the first process runs it, the others do their parts of its training and encoding."""

from __future__ import annotations

import os
from collections.abc import Callable


def started_by_torchrun() -> bool:
    """Tell whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1"


def run_by_rank(verb: Callable[[], None]) -> None:
    """Run the verb where this process is the first or the only one; else do what the first one asks for until it ends."""
    if not started_by_torchrun():
        verb()
        return
    from bahe_tasks.core import launched

    if launched.join() > 0:
        launched.follow()
        return
    try:
        verb()
    finally:
        launched.release()
