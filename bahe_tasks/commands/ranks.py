"""A verb under torchrun: the first process runs it, the others do their parts of its training and encoding."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from bahe_tasks.commands.console import EXIT_FAILED


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
        try:
            launched.follow()
        except Exception:
            traceback.print_exc()  # the answer on standard output is the first one's to give
            sys.exit(EXIT_FAILED)
        return
    try:
        verb()
    finally:
        launched.release()
