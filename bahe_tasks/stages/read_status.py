"""What `bahe status` and `bahe report` show: one record per day from the tables and the registry. Reads only."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.landing import passed_over
from bahe_tasks.schemas import SOURCES
from bahe_tasks.stages.days_in_force import excluded_days
from bahe_tasks.stages.gate_record import accepted_days, is_refused, record_key
from bahe_tasks.stages.landed_again import landed_again
from bahe_tasks.stages.read_metrics import read_metrics
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import champion, connect, versions
from bahe_tasks.stores.partition_records import PartitionRecord, partition_records
from bahe_tasks.stores.promotion_rules import ModelVersion, eligible, stale


def read_status(config: Config) -> dict[str, Any]:
    """Return {"days": [...], "history": [...], "champion": {...} | None}.

    `days` are the days that were run; `history` those of which a later run took in events and items; `in_force` of the
    champion, whether a day could start from it. Every landed row of a day is accounted for in its record; `accepted` is why its inputs were accepted by hand, None if they were not;
    `landed_again` are the sources whose files are others now than those that were taken in, or changed and cannot be read.
    """
    tables_dir = config.tables_dir
    landed = {source: partition_records(tables_dir, source) for source in SOURCES}
    gates = partition_records(tables_dir, "gate_results")
    registry = connect(config)
    known, current = versions(registry), champion(registry)
    days = sorted({dt for records in landed.values() for dt in records})
    excluded = {str(day) for day in excluded_days(config)}
    accepted = {str(day): reason for day, reason in accepted_days(config).items()}
    outdated, changed = stale(known), landed_again(config)
    records = [
        _day_status(dt, landed, gates, known, outdated, dt in excluded)
        | {
            "accepted": None if dt in excluded else accepted.get(dt),
            "passed_over_files": _passed_over(dt, config),
            "landed_again": changed.get(dt, []),
        }
        for dt in days
    ]
    return {
        "days": [record for record in records if record["day"] in landed["impressions"]],
        "history": [record for record in records if record["day"] not in landed["impressions"]],
        "champion": _champion(current) if current else None,
    }


def _champion(current: ModelVersion) -> dict[str, Any]:
    """Return the champion, and whether it is in force still: it serves on after its day has lost its rows or it was refused."""
    return {"version": current.version, "day": str(current.day), "in_force": current.eligible}


def _day_status(
    dt: str,
    landed: dict[str, dict[str, PartitionRecord]],
    gates: dict[str, PartitionRecord],
    known: list[ModelVersion],
    outdated: frozenset[int],
    excluded: bool,
) -> dict[str, Any]:
    counts = {source: records[dt].counts for source, records in landed.items() if dt in records}
    run = counts.get("impressions", {})
    of_day = [version for version in known if str(version.day) == dt]
    in_force = next(reversed(eligible(of_day)), None)  # as `parent_for`
    return {
        "day": dt,
        "landed_rows": sum(c["landed"] for c in counts.values()),
        "table_rows": sum(c["rows"] for c in counts.values()),
        "duplicate_rows": sum(c["duplicates"] for c in counts.values()),
        "quarantined_rows": sum(c["quarantined"] for c in counts.values()),
        "impressions": run.get("rows"),
        "new_behaviors": run.get("new_behaviors"),
        "capped_behaviors": run.get("capped_behaviors"),
        "reuse_rate": run.get("reuse_rate"),
        "unknown_columns": sorted({name for c in counts.values() for name in c.get("unknown_columns", [])}),
        "gate": _gate(dt, gates, of_day, excluded),
        "champion_version": in_force.version if in_force else None,
        "stale": bool(in_force and in_force.version in outdated),
    }


def _passed_over(dt: str, config: Config) -> list[str]:
    names: list[str] = []
    for source in SOURCES:
        with suppress(OSError):  # a folder that cannot be looked at; a run that reads it says so
            names += passed_over(config.landing_dir, source, date.fromisoformat(dt))
    return names


def _gate(dt: str, gates: dict[str, PartitionRecord], of_day: list[ModelVersion], excluded: bool) -> str | None:
    """Return what keeps others from reading the day, else the newest version's gate, None when it has none."""
    if excluded:
        inputs = gates.get(record_key(dt, "validate_inputs"))
        return "inputs_refused" if inputs and is_refused(inputs.counts) else "inputs_not_judged"
    newest = max(of_day, key=lambda version: version.version, default=None)
    if newest is None:
        return None
    if newest.withdrawn:
        return "withdrawn"
    return None if newest.superseded and not eligible(of_day) else newest.gate  # None: of a day that lost its rows


def read_report(config: Config) -> dict[str, Any]:
    """Return what the report shows: the documents above, all gate results and all model versions."""
    status = read_status(config)
    known = [
        {
            name: getattr(version, name)
            for name in ("version", "gate", "reason", "parent_version", "superseded", "withdrawn")
        }
        | {"day": str(version.day), "fingerprint": version.fingerprint[:12]}
        for version in versions(connect(config))
    ]
    return {
        "days": status["days"],
        "champion": status["champion"],
        "metrics": read_metrics(config, intervals=True, segments=True),
        "gate_results": read_table(config.tables_dir, "gate_results").to_pylist(),
        "versions": known,
    }
