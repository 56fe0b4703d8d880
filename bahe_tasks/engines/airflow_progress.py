"""Shows on standard error how a backfill in Airflow gets on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import date

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bahe_tasks.engines.day_outcome import TASK_ORDER, DayOutcome


class BackfillProgress:
    """Progress of `days` days. Use it as a context; tell it each change with `phase`, `task` and `day`."""

    def __init__(self, days: int, *, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.all_days = self.bars.add_task("days", total=days)
        self.today = self.bars.add_task("", total=len(TASK_ORDER), visible=False)
        self.current, self.since = "", time.monotonic()

    def __enter__(self) -> BackfillProgress:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def phase(self, name: str) -> None:
        """Tell that the part called `name` begins; the seconds of the part before it are printed."""
        if self.current:
            self.console.print(f"{self.current}: {time.monotonic() - self.since:.1f} s", soft_wrap=True)
        self.current, self.since = name, time.monotonic()
        self.bars.update(self.all_days, description=name)

    def task(self, day: date, task_id: str, state: str, seconds: float | None, *, finished: int) -> None:
        """Tell that a task of `day` is now in `state`, after `seconds` if it ran; `finished` tasks of the day ended."""
        self.bars.update(self.today, description=f"{day} {task_id} {state}", completed=finished, visible=True)
        if seconds and not self.console.is_terminal:
            self.console.print(f"{day}  {task_id:<20} {state:<8} {seconds:7.1f} s")

    def day(self, outcome: DayOutcome) -> None:
        """Tell that a day has ended."""
        self.bars.advance(self.all_days)
        self.bars.reset(self.today, visible=False)
        shares = " · ".join(f"{task} {seconds:.1f}" for task, seconds in outcome.task_seconds.items())
        self.console.print(f"{outcome.day}  {outcome.state} in {outcome.seconds:.1f} s  ({shares})", soft_wrap=True)
        if outcome.message:
            self.console.print(f"            {outcome.message}", soft_wrap=True, markup=False)
