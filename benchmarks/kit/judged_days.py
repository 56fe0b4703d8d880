"""Which days of which log a program of quality trains on and judges: of a landing folder, or of a synthetic log made on the fly."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer

from bahe_tasks.config import Config
from bahe_tasks.sources.synthetic import oracle_auc, synthesize
from benchmarks.kit.in_memory_log import InMemoryLog, read_log
from benchmarks.kit.label_times import NEVER, day_of

SYNTHETIC_FIRST = date(2024, 1, 1)


class Size(NamedTuple):
    """Of a synthetic log; users are those of its first day."""

    days: int
    users: int


SYNTHETIC = Size(days=21, users=1000)


class JudgedDays(NamedTuple):
    """Days from `first` on are trained on, those from `report_from` to `last` are judged."""

    landing: Path
    first: date
    report_from: date
    last: date


def synthetic(scratch: Path, *, days: int, users: int) -> Path:
    """Make a clean synthetic log from 2024-01-01 on and return its landing folder."""
    landing = scratch / "landing"
    synthesize(landing, days=days, users=users, seed=1, first_day=SYNTHETIC_FIRST, flaw_share=0.0)
    return landing


def judged_days(
    landing: Path | None,
    *,
    first: datetime,
    report_from: datetime,
    last: datetime,
    small: Size | None,
    scratch: Path,
) -> JudgedDays:
    """Return the days asked for; without `landing` the last third of a synthetic log in `scratch` is judged, `small` if given.

    Raises `typer.BadParameter` for what cannot be meant.
    """
    if landing is None:
        size = small or SYNTHETIC
        end = SYNTHETIC_FIRST + timedelta(size.days - 1)
        made = synthetic(scratch, days=size.days, users=size.users)
        return JudgedDays(made, SYNTHETIC_FIRST, end - timedelta(size.days // 3), end)
    if small:
        raise typer.BadParameter("--small makes a log of its own: leave LANDING out")
    if report_from <= first:
        raise typer.BadParameter("--report-from must be later than --first, a day that no model scores")
    return JudgedDays(landing, first.date(), report_from.date(), last.date())


def oracle_figures(days: JudgedDays, reached: float) -> dict[str, float]:
    """Return `oracle_auc`, the best AUC of the judged days of a synthetic log, and `oracle_share`, the share `reached`.

    Both are counted from ½ on, the AUC of a guess.
    """
    best = oracle_auc(days.landing, days.report_from, days.last)
    return {"oracle_auc": best, "oracle_share": (reached - 0.5) / (best - 0.5)}


def read_judged(days: JudgedDays, config: Config) -> tuple[InMemoryLog, np.ndarray]:
    """Return the log from `first` to `last` and which of its impressions are judged, (R,) bool.

    Days up to the first that anything is trained on are not, and no late impression: no model scores them. Raises `typer.BadParameter`
    for a log that cannot be read, and where nothing is left to judge.
    """
    try:
        whole = read_log(
            days.landing,
            numbers_as_of=config.numbers.as_of,
            landing_settings=config.landing,
            sequences=config.sequences,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    day = day_of(whole.rows.shown_at)
    start, end = np.searchsorted(day, np.array([days.first, days.last + timedelta(1)], "datetime64[D]"))
    log, day = whole.part(slice(start, end)), day[start:end]
    judged = (day >= np.datetime64(days.report_from)) & (day > np.append(log.train_days, NEVER).min())
    if log.label_times is not None:
        judged &= ~log.label_times.is_late
    if not judged.any():
        raise typer.BadParameter(
            f"{days.landing} has no impression to judge from {days.report_from} to {days.last}: the first day "
            f"from {days.first} on whose labels are known is trained on alone"
        )
    return log, judged
