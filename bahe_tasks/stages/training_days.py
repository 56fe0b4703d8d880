"""Which training days a run takes: those of its window, and earlier ones whose model never came to be."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from bahe_tasks.config import Config
from bahe_tasks.data_interval import days_between, parse_day
from bahe_tasks.stages.days_in_force import CATCH_UP_DAYS, first_day_of_window
from bahe_tasks.stores.model_registry import Registry, versions
from bahe_tasks.stores.promotion_rules import ModelVersion


def training_days(registry: Registry, day: date, parent: ModelVersion | None, config: Config) -> tuple[date, ...]:
    """Return the dates of `Window.train_date` whose rows the run of `day` trains on, oldest first.

    The last window_days and, in a warm start, those of the last CATCH_UP_DAYS since the parent's day of which no gate has
    judged a model: nothing landed, or the run failed, or its inputs were refused. Nobody else would train on their rows.
    Those of a model that was refused, or withdrawn since, had their turn.
    """
    window_start = first_day_of_window(day, config)
    window = tuple(days_between(window_start, day))
    if parent is None or config.training.start_from != "parent":
        return window
    since = max(parent.day + timedelta(days=1), day - timedelta(days=CATCH_UP_DAYS))
    missed = set(days_between(since, window_start - timedelta(days=1)))
    if missed:
        missed -= _had_their_turn(versions(registry), parent.day, day)
    return (*sorted(missed), *window)


def _had_their_turn(known: Iterable[ModelVersion], parent_day: date, day: date) -> set[date]:
    """Return the training days of the models that were judged between the parent's day and this one."""
    # One that passed and is not withdrawn is out of force because its day lost its rows (`supersede_day`).
    judged = [v for v in known if parent_day < v.day < day and (v.gate == "refused" or v.withdrawn)]
    return {parse_day(text) for v in judged for text in v.tags.get("training_days", str(v.day)).split()}
