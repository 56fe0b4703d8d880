"""When a model is updated and on which days: every day, on a window from scratch, once a week, never."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from bahe_tasks.core.training_rows import ImpressionRows
from benchmarks.kit.in_memory_log import InMemoryLog


@dataclass(frozen=True)
class UpdatePolicy:
    """An update after every `every_days` days, on the last `window_days`; 0: none at all."""

    name: str
    every_days: int
    window_days: int
    from_scratch: bool = False

    def window(self, day: date, *, since: date) -> tuple[date, date] | None:
        """Return first and last day that an update after `day` trains on, None where none is due.

        `since` is the day before the first that is scored: updates are counted from it. From scratch one is due on it too.
        """
        days_since = (day - since).days
        due = bool(self.every_days) and days_since % self.every_days == 0 and (days_since > 0 or self.from_scratch)
        return (day - timedelta(days=self.window_days - 1), day) if due else None

    def rows_after(self, day: date, log: InMemoryLog, *, since: date) -> ImpressionRows | None:
        """Return the impressions that an update after `day` trains on, None where none is due or there are none.

        An update of a day without impressions is made after the last day before it that has any.
        """
        for quiet in range((log.next_day(day) - day).days):
            window = self.window(day + timedelta(days=quiet), since=since)
            if window:
                rows = log.between(*window)
                return rows if len(rows) else None
        return None


WARM_START = UpdatePolicy("warm_start", every_days=1, window_days=1)
WEEKLY = UpdatePolicy("weekly", every_days=7, window_days=7)
NO_UPDATE = UpdatePolicy("no_update", every_days=0, window_days=0)


def refit(window_days: int) -> UpdatePolicy:
    """Return a daily re-fit from the pre-trained weights on the last `window_days` days."""
    return UpdatePolicy(f"refit_{window_days}", every_days=1, window_days=window_days, from_scratch=True)
