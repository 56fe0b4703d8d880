"""Progress of days that run in this process: the task, how far it is, its rate and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from bahe_tasks.commands.console import log
from bahe_tasks.engines.day_outcome import Progress as OnProgress


class _RateColumn(TextColumn):
    """Units a second, once it is known."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: ProgressTask) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed and task.total else "")


@contextmanager
def day_progress() -> Iterator[OnProgress]:
    """Yield the callback that `engines.inline` reports to; shows one live line on stderr, nothing when it is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
        line = bar.add_task("starting", total=None)
        current = ""

        def on_progress(day: date, task: str, done: int, total: int) -> None:
            nonlocal current
            if (label := f"{day} {task}") != current:
                current = label
                bar.reset(line, total=None, description=label)
            bar.update(line, completed=done, total=total or None)

        yield on_progress
