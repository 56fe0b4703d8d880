"""Which days a run of D may read, and how far back its windows reach (DESIGN: Tables; Which model, when).

A day whose inputs were refused, or not judged as they now stand, is not read by any other day until they pass or are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from bahe_tasks.config import Config
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.stages.errors import InputsChangedError
from bahe_tasks.stages.gate_record import is_refused, recorded_days
from bahe_tasks.stores.partition_records import PartitionRecord, partition_records

CATCH_UP_DAYS = 14
"""Days before D whose rows are still caught up with; what was missed longer ago takes a backfill."""


def excluded_days(config: Config) -> frozenset[date]:
    """Return the days that were begun and that no other day reads (`_may_be_read`)."""
    begun, written = (_records(name, config) for name in ("user_sequences", "impressions"))
    gates = recorded_days(config, "validate_inputs")
    days = begun.keys() | written.keys() | gates.keys()
    return frozenset(d for d in days if not _may_be_read(begun.get(d), written.get(d), gates.get(d)))


def check_inputs_passed(day: date, config: Config) -> None:
    """Raise `InputsChangedError` where the day's inputs were refused, or changed, after a run that goes on had them judged."""
    if day in excluded_days(config):
        raise InputsChangedError(
            f"the inputs of {day} were refused or changed since they were judged: run the day again"
        )


def _may_be_read(begun: PartitionRecord | None, written: PartitionRecord | None, gate: PartitionRecord | None) -> bool:
    """Return whether others may read a day: its run wrote it whole, and its inputs passed, or were accepted, as they stand.

    Of a day's tables user_sequences is written first and impressions last (`spark_jobs.write_day`). A day on which neither an
    event nor an impression landed is an error and never judged; its items are read.
    """
    if gate is not None and is_refused(gate.counts):
        return False
    if written is None:
        return begun is None
    if begun is not None and begun.input_fingerprint != written.input_fingerprint:
        return False
    if all(written.counts.get(source, {"landed": 1})["landed"] == 0 for source in ("behavior_events", "impressions")):
        return True
    return gate is not None and gate.judged in ("", written.input_fingerprint)


def _records(name: str, config: Config) -> dict[date, PartitionRecord]:
    return {date.fromisoformat(dt): record for dt, record in partition_records(config.tables_dir, name).items()}


def readable_partitions(first: date, last: date, config: Config) -> str:
    """Return the condition on dt (SQL) of the days from `first` to `last` that may be read once `last` was judged."""
    conditions = [f"dt >= '{first}'", f"dt <= '{last}'"]
    conditions += [f"dt != '{excluded}'" for excluded in sorted(excluded_days(config)) if first <= excluded <= last]
    return " AND ".join(conditions)


def first_day_of_window(day: date, config: Config) -> date:
    """Return the first of the window_days training days that end with `day`."""
    return day - timedelta(days=config.training.window_days - 1)


def first_impression_day(training_day: date, config: Config) -> date:
    """Return the earliest dt of rows of a training day; of rows that judge a model of that day as well.

    They landed at most gate.gate_days earlier if they were held out, plus the days until their labels were known.
    """
    return training_day - timedelta(days=config.gate.gate_days + config.landing.label_horizon_days)


def window_fingerprints(day: date, config: Config, training_days: Sequence[date]) -> dict[str, str]:
    """Return dt → fingerprint of every partition of impressions that a run of `day` reads which trains on these days."""
    first, excluded = first_impression_day(training_days[0], config), excluded_days(config)
    records = partition_records(config.tables_dir, "impressions")
    days = [
        d for d in sorted(map(date.fromisoformat, records)) if first <= d <= day and (d == day or d not in excluded)
    ]
    return {str(d): records[str(d)].input_fingerprint for d in days}


def training_fingerprint(
    day: date, config: Config, *, encoder_version: str, parent_fingerprint: str | None, training_days: Sequence[date]
) -> str:
    """Return the input fingerprint of fine_tune: rows of the windows and which are trained on, settings that decide, the parent."""
    return fingerprint(
        stage="fine_tune",
        day=day,
        impressions=window_fingerprints(day, config, training_days),
        encoder_version=encoder_version,
        parent=parent_fingerprint,
        training_days=training_days,
        model=config.model,
        training=replace(config.training, checkpoint_steps=0),  # decides nothing but where a killed run goes on
        held_out=[config.gate.gate_days, config.gate.held_out_share, config.landing.label_horizon_days],
        behaviors_read=[config.sequences.max_behaviors_per_sequence, config.sequences.max_behaviors_by_feature],
    )
