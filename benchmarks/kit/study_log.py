"""The days that a study of quality replays: of a landing folder, or of a synthetic log made on the fly."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from bahe_tasks.config import SequencesConfig
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.sources.synthetic import synthesize
from benchmarks.kit.in_memory_log import InMemoryLog, read_log
from benchmarks.kit.label_times import day_of

_SYNTHETIC_FIRST = date(2024, 1, 1)
_IMPRESSIONS_PER_USER, _EVENTS_PER_USER = 8.0, 5.0


class NoImpressionsError(ValueError):
    """A log without impressions on the days asked for."""


class LateLabelsError(ValueError):
    """A log whose labels are not all known when their day is over."""


@dataclass(frozen=True)
class StudyLog:
    """A log, and the days of it that are replayed."""

    log: InMemoryLog
    days: list[tuple[date, ImpressionRows]]

    def of_new(self, column: str) -> np.ndarray:
        """Return whether the user ("user_ids") or item ("item_ids") has no impression on an earlier replayed day.

        (R,) bool over the rows of all days but the first, which is not scored.
        """
        ids = np.concatenate([getattr(rows, column) for _, rows in self.days])
        day = np.repeat(np.arange(len(self.days)), [len(rows) for _, rows in self.days])
        _, first, which = np.unique(ids, return_index=True, return_inverse=True)
        return (day[first][which] == day)[len(self.days[0][1]) :]


def add_log_arguments(parser: argparse.ArgumentParser, *, days: int, users: int, max_behaviors: int) -> None:
    """Add `--landing`, `--first-day`, `--days`, `--users` and `--max-behaviors` with these defaults."""
    parser.add_argument("--landing", type=Path, help="landing folder; else a synthetic log is made")
    parser.add_argument(
        "--first-day", type=date.fromisoformat, help="first day replayed, YYYY-MM-DD; else the log's first"
    )
    parser.add_argument("--days", type=int, default=days, help="calendar days replayed")
    parser.add_argument("--users", type=int, default=users, help="users of the synthetic log on its first day")
    parser.add_argument(
        "--max-behaviors", type=_positive, default=max_behaviors, help="S: newest behaviors read of a feature"
    )


def _positive(given: str) -> int:
    if int(given) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(given)


def read_study_log(given: argparse.Namespace) -> StudyLog:
    """Return what the arguments of `add_log_arguments` ask for; no later day is read.

    Raises `NoImpressionsError`, `LateLabelsError`.
    """
    if given.landing is None:
        with tempfile.TemporaryDirectory(prefix="bahe-study-") as scratch:
            landing = Path(scratch) / "landing"
            synthesize(
                landing,
                days=given.days,
                users=given.users,
                seed=1,
                first_day=given.first_day or _SYNTHETIC_FIRST,
                impressions_per_user=_IMPRESSIONS_PER_USER,
                events_per_user=_EVENTS_PER_USER,
                flaw_share=0.0,
            )
            return _read(landing, given)
    return _read(given.landing, given)


def _read(landing: Path, given: argparse.Namespace) -> StudyLog:
    folders = sorted(folder.name.removeprefix("dt=") for folder in (landing / "impressions").glob("dt=*"))
    if not folders:
        raise NoImpressionsError(f"{landing}/impressions has no day: give the folder of a landing contract")
    first = given.first_day or date.fromisoformat(folders[0])
    last = first + timedelta(days=given.days - 1)
    sequences = SequencesConfig(
        max_behaviors_per_sequence=given.max_behaviors,
        max_events_per_sequence=max(SequencesConfig.max_events_per_sequence, given.max_behaviors),
    )
    log = read_log(landing, sequences=sequences, last=last)
    days = log.days(first, last)
    replayed = (day_of(log.rows.shown_at) >= np.datetime64(first)) & (log.train_days != day_of(log.rows.shown_at))
    if replayed.any():
        raise LateLabelsError(
            f"{landing} has {replayed.sum()} impressions from {first} on whose labels come on a later day: "
            "a study learns from each day when it is over; benchmarks.quality takes them in when they come"
        )
    if len(days) < 2:
        raise NoImpressionsError(
            f"{landing} has impressions on {len(days)} of the days {first} to {last}: choose others"
        )
    return StudyLog(log, days)
