"""Shows on standard error how a backfill in Airflow gets on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from datetime import date

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bahe_tasks.engines.day_outcome import TASK_ORDER, DayOutcome


class BackfillProgress:
    """Progress of `days` days. Use as a context; tell it each change with `task` and `day`."""

    def __init__(self, days: int, *, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self.console
        )
        self.all_days: TaskID = self.bars.add_task("days", total=days)
        self.current: TaskID | None = None

    def __enter__(self) -> BackfillProgress:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def task(self, day: date, task_id: str, state: str, seconds: float | None, *, finished: int) -> None:
        """Tell that a task of `day` is now in `state`, after `seconds` if it ran; `finished` tasks of the day have ended."""
        if self.console.is_terminal:
            if self.current is None:
                self.current = self.bars.add_task("", total=len(TASK_ORDER))
            self.bars.update(self.current, description=f"{day} {task_id} {state}", completed=finished)
        elif seconds:
            self.console.print(f"{day}  {task_id:<20} {state:<10} {seconds:6.1f} s")

    def day(self, outcome: DayOutcome) -> None:
        """Tell that a day has ended."""
        if self.current is not None:
            self.bars.remove_task(self.current)
            self.current = None
        self.bars.advance(self.all_days)
        shares = " · ".join(f"{task} {seconds:.1f}" for task, seconds in outcome.task_seconds.items())
        self.console.print(f"{outcome.day}  {outcome.state} in {outcome.seconds:.1f} s  ({shares})", soft_wrap=True)
        if outcome.message:
            self.console.print(f"            {outcome.message}", soft_wrap=True, markup=False)
