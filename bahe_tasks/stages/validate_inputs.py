"""Stage 2: refuse a broken or shrunken day before a GPU is touched.

A refused day stays in the tables, but no other day reads it until it passes (landed again) or is accepted with a reason.
Nor is one read that was written and not judged since, by a run that was killed between the two stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa

from bahe_tasks.config import Config
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.schemas import SOURCES
from bahe_tasks.stages.days_in_force import excluded_days
from bahe_tasks.stages.errors import GateRefused
from bahe_tasks.stages.gate_record import (
    accepted_days,
    is_refused,
    record_results,
    recorded_days,
    recorded_outcomes,
    what_failed,
)
from bahe_tasks.stores.delta_tables import scan_table
from bahe_tasks.stores.expectations import ExpectationResult, stops, validate
from bahe_tasks.stores.gate_frames import INPUT_COLUMNS, DayCounts, asked_of, input_frames
from bahe_tasks.stores.gate_suites import input_suites
from bahe_tasks.stores.partition_records import partition_records

_STAGE: Final = "validate_inputs"


def validate_inputs(
    day: date, config: Config, *, force: bool = False, accept_reason: str | None = None
) -> dict[str, Any]:
    """Check the day's tables and row counts; return {"gate": "passed" | "accepted", "expectations": n}.

    Raises `GateRefused` when an expectation fails or errors, unless `accept_reason` says why the day is good anyway, or
    said so of the very same impressions before.
    """
    history = earlier_rows(day, config)
    judged = partition_records(config.tables_dir, "impressions")[str(day)].input_fingerprint
    accepted_before = _accepted_before(day, config, judged)
    accept_reason = accept_reason or accepted_before
    stage_fingerprint = fingerprint(
        stage=_STAGE,
        tables=judged,
        gate=config.gate,
        late_days=config.landing.late_days,
        history=history,
    )
    outcomes = None if force else recorded_outcomes(config, day, _STAGE, stage_fingerprint)
    if outcomes is None or (accept_reason and is_refused(outcomes)):
        results = validate(
            _frames(day, config, history=history),
            input_suites(day, gate=config.gate, late_days=config.landing.late_days),
            gx_dir=config.home / "gx",
            day=day,
            stage=_STAGE,
        )
        if accepted_before or (
            accept_reason and stops(results)
        ):  # one that passes by itself may yet meet a stricter gate
            results.append(ExpectationResult("accepted by hand", "accepted", accept_reason or "", "a reason"))
        outcomes = record_results(
            config, day, _STAGE, results, model_version=None, input_fingerprint=stage_fingerprint, judged=judged
        )
    if is_refused(outcomes):
        raise GateRefused(
            f"inputs of {day} refused: {what_failed(config, day, _STAGE)}; see `bahe report`, "
            f"or accept them with `bahe run-day {day} --accept-inputs REASON`"
        )
    return {"gate": "accepted" if "accepted" in outcomes.values() else "passed", "expectations": len(outcomes)}


def _accepted_before(day: date, config: Config, judged: str) -> str | None:
    """Return why these impressions were accepted by hand; None if they were not."""
    record = recorded_days(config, _STAGE).get(day)
    if record is None or record.judged not in ("", judged) or "accepted" not in record.counts.values():
        return None
    return accepted_days(config, day)[day]


def earlier_rows(day: date, config: Config) -> dict[str, list[int]]:
    """Return source → table rows of each of the last gate_days days that has any record and may be read, D left out."""
    excluded, history = excluded_days(config), {}
    for source in ("behavior_events", "impressions"):
        records = partition_records(config.tables_dir, source)
        earlier = (day - timedelta(days=n) for n in range(1, config.gate.gate_days + 1))
        history[source] = [records[str(d)].counts["rows"] for d in earlier if str(d) in records and d not in excluded]
    return history


def _rows(name: str, day: date, config: Config) -> Iterator[pa.RecordBatch]:
    return scan_table(config.tables_dir, name, columns=INPUT_COLUMNS[name], partitions=f"dt = '{day}'", filters=None)


def _frames(day: date, config: Config, *, history: dict[str, list[int]]) -> dict[str, Any]:
    tables = {name: asked_of(name, _rows(name, day, config)) for name in SOURCES}
    records = {name: partition_records(config.tables_dir, name).get(str(day)) for name in SOURCES}
    counts = [record.counts for record in records.values() if record is not None]
    impressions = records["impressions"]
    lost = impressions.counts["quarantined"] if impressions else 0
    return input_frames(
        **tables,
        counts=DayCounts(
            landed_rows=sum(c["landed"] for c in counts),
            table_rows=sum(table.num_rows for table in tables.values()),
            duplicate_rows=sum(c["duplicates"] for c in counts),
            quarantined_rows=sum(c["quarantined"] for c in counts),
            impressions_lost=0 if tables["impressions"].num_rows else lost,
        ),
        history=history,
    )
