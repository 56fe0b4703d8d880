"""Stage 1: the day's landing becomes tables, and the day learns which atomic behaviors are new (PAPER.md, step 4).

Spark does the work (`spark_jobs.dedup_behaviors`); this file decides what it reads. Besides the day itself those are
landed partitions of the two change logs (events, items) that no run has taken in yet, so that a backfill that starts
late still has histories and titles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.landing import (
    LandedTimes,
    landed_days,
    landed_files,
    landed_times,
    landing_fingerprint,
    not_read,
    passed_over,
)
from bahe_tasks.schemas import SOURCES
from bahe_tasks.stages.days_in_force import excluded_days, first_day_of_window, first_impression_day
from bahe_tasks.stages.errors import NothingLandedError
from bahe_tasks.state_cover import days_to_merge, state_cover
from bahe_tasks.stores.delta_tables import count_stored
from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.partition_records import partition_records
from spark_jobs.dedup_behaviors import DedupPlan
from spark_jobs.dedup_behaviors import dedup_behaviors as run_spark_job
from spark_jobs.derived.file_parts import plain
from spark_jobs.landing_files import remove_folder
from spark_jobs.lost_jvm import jvm_must_last
from spark_jobs.session import spark_session
from spark_jobs.settle_landing import settled_folder

_DAY_START_RULE = 2
"""Which meaning of `numbers.as_of: day_start` a day was run with; 1: gaps and ages as of the impression."""
_DAY_START_HISTORIES = 2
"""Likewise of `sequences.history_as_of: day_start`; 1: with events that landed on the day itself, and without those of one day before."""
_OF_THE_DAY = ("user_sequences", "new_behaviors", "running_sums", "impressions")
"""Tables of which a run writes the day's partition whole, the last one last."""
_SMALL_BYTES = 512 << 20
"""Bytes of landed rows that one task of Spark settles."""
_STATE_ROWS_A_ROW, _HISTORY_ROWS_A_ROW = 5, 8
"""Rows of earlier running sums, and of histories, that take the driver's memory of a row of the day."""
_KEYS_A_ROW, _MOST_KEYS = 16, 1 << 24
"""Distinct behaviors of the windows that take it, and how many go with what lands into one column of keys."""
_BYTES_A_LINE = 100
_ROWS_LOOKED_AT = 1 << 10


def dedup_behaviors(day: date, config: Config, *, force: bool = False) -> dict[str, Any]:
    """Write the day's rows, histories and new atomic behaviors; return their counts.

    Of several processes on a machine one does so, the others wait: what it reads is as another has left it, whole. With
    `force`, history that landed anew since it was taken in is taken in again. Raises `NothingLandedError` when the day has
    neither events nor impressions.
    """
    with one_at_a_time(config.home / "work" / "dedup.lock"):
        return _dedup_behaviors(day, config, force=force)


def _dedup_behaviors(day: date, config: Config, *, force: bool) -> dict[str, Any]:
    landing_dir, tables_dir = config.landing_dir, config.tables_dir
    if not any(landed_files(landing_dir, source, day) for source in ("behavior_events", "impressions")):
        raise NothingLandedError(_nothing_landed(day, config, "has no files"))
    excluded = frozenset(d for d in excluded_days(config) if d < day)
    state_days = state_cover(
        day, recorded=[date.fromisoformat(d) for d in partition_records(tables_dir, "running_sums")], excluded=excluded
    )
    ingest, history, seen = _partitions_to_read(day, config, state_days=state_days, again=force)
    version = encoder_version(config.encoder)
    needed_from = first_impression_day(first_day_of_window(day, config), config)
    stage_fingerprint = fingerprint(
        stage="dedup_behaviors",
        landed={source: ingest[source][day] for source in SOURCES},
        history=history,
        excluded=excluded,
        encoder_version=version,
        rules=[config.landing.late_days, config.landing.label_delay_s, config.sequences],
        needed_from=needed_from,
        **({"histories": _DAY_START_HISTORIES} if config.sequences.history_as_of == "day_start" else {}),
        running_sums=_counted_inputs(day, config, state_days=state_days, excluded=excluded),
    )
    # A run of other inputs may have been killed between its tables, and a table may have been lost.
    records = [partition_records(tables_dir, name).get(str(day)) for name in _OF_THE_DAY]
    is_whole = all(of is not None and of.input_fingerprint == stage_fingerprint for of in records)
    if is_whole and records[-1] is not None and not force:
        counts = records[-1].counts
        remove_folder(settled_folder(tables_dir, day))  # of a run that was killed after its last commit
    else:
        landed_rows = _landed_rows(config, ingest)
        plan = DedupPlan(
            day=day,
            tables_dir=tables_dir,
            landing_dir=str(landing_dir),
            ingest=ingest,
            excluded_days=excluded,
            encoder_version=version,
            needed_from=needed_from,
            landing=config.landing,
            sequences=config.sequences,
            numbers=config.numbers,
            state_days=state_days,
            is_small=_landed_bytes(config, ingest) <= _SMALL_BYTES
            and _fits_driver(day, config, state_days=state_days, excluded=excluded, landed_rows=landed_rows),
            input_fingerprint=stage_fingerprint,
            landed_times=seen,
        )
        with jvm_must_last():
            counts = run_spark_job(spark_session(config.spark, app_name="bahe"), plan)
    if not any(counts[source]["landed"] for source in ("behavior_events", "impressions")):
        raise NothingLandedError(_nothing_landed(day, config, "has files without a row"))
    return counts


def _partitions_to_read(
    day: date, config: Config, *, state_days: Sequence[date], again: bool
) -> tuple[dict[str, dict[date, str]], dict[str, dict[str, str]], dict[str, dict[date, LandedTimes]]]:
    """Return the landed partitions to take in (source → dt → fingerprint), those of the whole history, and when the former had changed.

    The history counts a partition by the fingerprint it was taken in with, so that a second run of the same day, which
    finds everything taken in, has the same inputs. `again`: of days that had no run of their own, partitions are taken in anew
    whose files are others now or that hold rows which were too late, by a rule that may be another now.
    """
    had_a_run = {date.fromisoformat(dt) for dt in partition_records(config.tables_dir, "impressions")}
    ingest: dict[str, dict[date, str]] = {}
    history: dict[str, dict[str, str]] = {}
    seen: dict[str, dict[date, LandedTimes]] = {source: {} for source in SOURCES}

    def look(source: str, dt: date) -> str:
        seen[source][dt] = landed_times(config.landing_dir, source, dt)  # before anything is read
        return landing_fingerprint(config.landing_dir, source, dt)

    oldest_event, _ = config.sequences.landed_days(day)
    for source in SOURCES:
        ingest[source] = {day: look(source, day)}
        if source == "impressions":
            continue
        taken = partition_records(config.tables_dir, source)
        known = {date.fromisoformat(dt): record.input_fingerprint for dt, record in taken.items()}
        for landed in landed_days(config.landing_dir, source):
            if landed >= day or (source != "items" and landed < oldest_event):
                continue
            if landed not in known or (again and landed not in had_a_run):
                files = look(source, landed)
                reasons = taken[str(landed)].counts["reasons"] if landed in known else {}
                if known.get(landed) != files or "too_late" in reasons:
                    ingest[source][landed] = known[landed] = files
        first = date.min if source == "items" or not state_days else min(oldest_event, state_days[0])
        history[source] = {str(d): known[d] for d in sorted(known) if first <= d < day}
    taken_in = {source: {dt: seen[source][dt] for dt in partitions} for source, partitions in ingest.items()}
    return ingest, history, taken_in


def _landed_rows(config: Config, ingest: Mapping[str, Mapping[date, str]]) -> int:
    """Return about how many rows are taken in."""
    return sum(_rows_of(file) for file in _files(config, ingest))


def _landed_bytes(config: Config, ingest: Mapping[str, Mapping[date, str]]) -> int:
    return sum(_bytes_of(file) for file in _files(config, ingest))


def _files(config: Config, ingest: Mapping[str, Mapping[date, str]]) -> list[Path]:
    return [
        file for source, days in ingest.items() for d in days for file in landed_files(config.landing_dir, source, d)
    ]


def _rows_of(file: Path) -> int:
    if file.suffix == ".parquet":
        with suppress(pa.ArrowException, OSError):  # the job says what is wrong with it
            return int(pq.read_metadata(file).num_rows)
    return file.stat().st_size // _BYTES_A_LINE


def _bytes_of(file: Path) -> int:
    """Return about how many bytes a file's rows have: a parquet file says a value that is repeated once, and compresses it."""
    size = file.stat().st_size
    if file.suffix == ".parquet":
        with suppress(pa.ArrowException, OSError), pq.ParquetFile(file) as parquet:
            if parquet.metadata.num_rows > _ROWS_LOOKED_AT:
                first = plain(pa.Table.from_batches([next(parquet.iter_batches(_ROWS_LOOKED_AT, use_threads=False))]))
                size = max(size, parquet.metadata.num_rows * first.nbytes // len(first))
    return size


def _fits_driver(
    day: date, config: Config, *, state_days: Sequence[date], excluded: Collection[date], landed_rows: int
) -> bool:
    """Return whether the driver can hold what the day reads besides what lands."""

    def stored(name: str, first: date) -> int:
        unread = "".join(f" AND dt <> '{d}'" for d in sorted(excluded))
        return count_stored(
            config.tables_dir, name, partitions=f"dt >= '{first}' AND dt < '{day}'{unread}" if first < day else "false"
        )

    horizon = timedelta(days=config.landing.label_horizon_days)
    first = state_days[0] if state_days else date(1970, 1, 1) + horizon
    counted = (
        landed_rows + stored("impressions", first - horizon) + stored("behavior_events", first + timedelta(days=1))
    )
    merged = sum(
        count_stored(config.tables_dir, "running_sums", partitions=f"dt = '{d}'")
        for d in days_to_merge(day, state_days)
    )
    oldest_event, _ = config.sequences.landed_days(day)
    histories = min(stored("behavior_events", oldest_event), _history_rows(day, config))
    rows = max(counted, merged / _STATE_ROWS_A_ROW, histories / _HISTORY_ROWS_A_ROW)
    return rows <= config.spark.driver_rows and _keys_fit_driver(day, config, stored)


def _keys_fit_driver(day: date, config: Config, stored: Callable[[str, date], int]) -> bool:
    """Return whether the driver can hold each behavior of the windows once: all that are read, or all that there are.

    A sequence has more behaviors than a model reads only for events of its own day.
    """
    first = first_impression_day(first_day_of_window(day, config), config)
    most = min(_MOST_KEYS, config.spark.driver_rows * _KEYS_A_ROW)
    read = stored("user_sequences", first) * config.sequences.max_behaviors_per_sequence
    if read + stored("behavior_events", first) + stored("impressions", first) <= most:
        return True
    return count_stored(config.tables_dir, "atomic_behaviors") <= most


def _history_rows(day: date, config: Config) -> float:
    """Return how many rows the histories of a day's users have at most, if they are twice those of the day before."""
    earlier = [dt for dt in partition_records(config.tables_dir, "user_sequences") if dt < str(day)]
    if not earlier:
        return math.inf
    sequences = count_stored(config.tables_dir, "user_sequences", partitions=f"dt = '{max(earlier)}'")
    return 2 * sequences * config.sequences.max_behaviors_per_sequence


def _counted_inputs(
    day: date, config: Config, *, state_days: Sequence[date], excluded: Collection[date]
) -> dict[str, Any]:
    """Return what decides the running sums beside the day and its events: the state before, labels known since, settings."""
    states = partition_records(config.tables_dir, "running_sums")
    days_read = max(config.landing.label_horizon_days, config.landing.late_days)  # late ones may be there already
    oldest = state_days[0] - timedelta(days=days_read) if state_days else date.min
    impressions = partition_records(config.tables_dir, "impressions")
    return {
        "numbers": config.numbers,
        **({"day_start": _DAY_START_RULE} if config.numbers.as_of == "day_start" else {}),
        "label_horizon_days": config.landing.label_horizon_days,
        "state": {str(d): states[str(d)].input_fingerprint for d in state_days},
        "impressions": {
            dt: record.input_fingerprint
            for dt, record in sorted(impressions.items())
            if oldest < date.fromisoformat(dt) < day and date.fromisoformat(dt) not in excluded
        },
    }


def _nothing_landed(day: date, config: Config, what: str) -> str:
    days = sorted(
        {*landed_days(config.landing_dir, "impressions"), *landed_days(config.landing_dir, "behavior_events")}
    )
    span = f"landed days are {days[0]} to {days[-1]}" if days else "no day has landed at all"
    others = [name for source in SOURCES for name in passed_over(config.landing_dir, source, day)]
    unread = f"; {not_read(others)}" if others else ""
    return f"{day} {what} in behavior_events/dt={day} or impressions/dt={day} of {config.landing_dir}; {span}{unread}"
