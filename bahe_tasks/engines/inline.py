"""The day and the days without Airflow: the same stage functions, in one process, with one Spark session.

Two processes that run days of one home take turns, day by day: of two that trained a day at once, one would go on from a model
that the other has replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from traceback import format_exception
from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.data_interval import days_between
from bahe_tasks.engines.day_outcome import DayOutcome, Progress, why_no_impressions, why_without_model
from bahe_tasks.error_chain import chain_of
from bahe_tasks.stages.dedup_behaviors import dedup_behaviors
from bahe_tasks.stages.encode_behaviors import encode_behaviors
from bahe_tasks.stages.errors import GateRefused
from bahe_tasks.stages.fine_tune import fine_tune
from bahe_tasks.stages.promote_champion import promote_champion
from bahe_tasks.stages.publish_embeddings import publish_embeddings
from bahe_tasks.stages.register_challenger import register_challenger
from bahe_tasks.stages.validate_challenger import validate_challenger
from bahe_tasks.stages.validate_inputs import validate_inputs
from bahe_tasks.stores.expectations import write_data_docs
from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.held_files import small_files_held
from bahe_tasks.wrong_use import WrongUseError
from spark_jobs.session import FOR_MANY_DAYS

_MANY_DAYS = 5
"""From how many days on a JVM that optimises is the quicker one (`spark_jobs.session`)."""


def run_day(
    day: date,
    config: Config,
    *,
    force: bool = False,
    accept_reason: str | None = None,
    progress: Progress | None = None,
) -> DayOutcome:
    """Run the day's tasks in order. A refused gate is an outcome; any other error is raised."""
    outcome, error = _run_tasks(day, config, force=force, accept_reason=accept_reason, progress=progress)
    if error is not None:
        raise error
    return outcome


def _run_tasks(
    day: date, config: Config, *, force: bool, accept_reason: str | None, progress: Progress | None
) -> tuple[DayOutcome, Exception | None]:
    """Return what the day came to, and the error that ended it."""
    task_seconds: dict[str, float] = {}
    states: dict[str, str] = {}
    results: dict[str, dict[str, Any]] = {}

    def run(task: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        name = task.__name__
        if progress is not None:
            progress(day, name, 0, 0)
        started, states[name] = time.monotonic(), "failed"
        try:
            results[name] = task(day, config, **arguments)
            states[name] = "success"
        finally:
            task_seconds[name] = time.monotonic() - started
        return results[name]

    def steps(name: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(day, name, done, total)

    def outcome(state: Any, message: str = "", **of_error: Any) -> DayOutcome:
        return DayOutcome(day, state, sum(task_seconds.values()), states, task_seconds, results, message, **of_error)

    lock = config.home / "work" / "day.lock"
    try:
        with one_at_a_time(lock, waiting=f"another process runs a day of {config.home}; {day} waits for it to end"):
            run(dedup_behaviors, force=force)
            run(validate_inputs, force=force, accept_reason=accept_reason)
            run(encode_behaviors, force=force, progress=steps("encode_behaviors"))
            tuned = run(fine_tune, force=force, progress=steps("fine_tune"))
            if tuned["state"] != "trained":
                none = tuned["state"] == "no_impressions"
                return outcome(
                    tuned["state"], why_no_impressions(day, results, config.landing_dir) if none else ""
                ), None
            version = run(register_challenger, run_id=tuned["run_id"])["version"]
            run(validate_challenger, version=version, force=force)
            run(promote_champion, version=version)
            run(publish_embeddings, version=version)
    except GateRefused as refused:
        return outcome("refused", str(refused)), None
    except Exception as error:
        # PySpark raises what its cancelled job ended with over the KeyboardInterrupt that cancelled it.
        if any(isinstance(earlier, KeyboardInterrupt) for earlier in chain_of(error)):
            raise KeyboardInterrupt from error
        traceback, wrong_use = "".join(format_exception(error)), isinstance(error, WrongUseError)
        told = f"{type(error).__name__}: {error}"
        return outcome("failed", told, traceback=traceback, wrong_use=wrong_use), error
    return outcome("done", why_without_model(results)), None


def for_days(count: int, config: Config) -> Config:
    """Return the configuration with the JVM that suits so many days in one process, unless it names one."""
    if count < _MANY_DAYS or config.spark.jvm_options:
        return config
    return replace(config, spark=replace(config.spark, jvm_options=FOR_MANY_DAYS))


def run_backfill(
    first: date,
    last: date,
    config: Config,
    *,
    force: bool = False,
    accept_reason: str | None = None,
    progress: Progress | None = None,
) -> Iterator[DayOutcome]:
    """Run the days oldest first, both ends included, and go on after a day that was refused or failed.

    Data Docs are written when no day is left: Great Expectations goes through a whole month whenever it adds to one.
    """
    config = for_days((last - first).days + 1, config)
    with small_files_held():
        for day in days_between(first, last):
            yield _run_tasks(day, config, force=force, accept_reason=accept_reason, progress=progress)[0]
    write_data_docs(config.home / "gx")
