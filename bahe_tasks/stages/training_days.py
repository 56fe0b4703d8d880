"""Which training days a run takes: those of its window, and earlier ones whose model never came to be."""

from __future__ import annotations

from datetime import date, timedelta

from bahe_tasks.config import Config
from bahe_tasks.data_interval import days_between
from bahe_tasks.stages.days_in_force import first_impression_day
from bahe_tasks.stores.model_registry import Registry, versions
from bahe_tasks.stores.promotion_rules import ModelVersion


def training_days(registry: Registry, day: date, parent: ModelVersion | None, config: Config) -> tuple[date, ...]:
    """Return the dates of `Window.train_date` whose rows the run of `day` trains on, oldest first.

    The last window_days and, in a warm start, days since the parent's of which no gate has judged a model: nothing
    landed, or the run failed, or its inputs were refused. Nobody else would train on their rows. Those of a model that
    was refused, or withdrawn since, had their turn. Days before `first_impression_day` are out of reach.
    """
    window_start = day - timedelta(days=config.training.window_days - 1)
    since = window_start
    if parent is not None and config.training.start_from == "parent":
        since = min(since, max(parent.day + timedelta(days=1), first_impression_day(day, config)))
    return tuple(d for d in days_between(since, day) if d >= window_start or not _is_judged(registry, d))


def _is_judged(registry: Registry, day: date) -> bool:
    return any(version.gate in ("passed", "refused") for version in versions(registry, day=str(day)))
