"""What each expectation of a gate said, written once per (day, stage), and whether it adds up to a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Literal

import pyarrow.compute as pc

from bahe_tasks.config import Config
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import ExpectationResult
from bahe_tasks.stores.gate_results import gate_results_rows
from bahe_tasks.stores.partition_records import PartitionRecord, partition_records

Stage = Literal["validate_inputs", "validate_challenger"]


def record_results(
    config: Config,
    day: date,
    stage: Stage,
    results: Sequence[ExpectationResult],
    *,
    model_version: int | None,
    input_fingerprint: str,
    judged: str = "",
) -> dict[str, str]:
    """Replace the stage's results of the day in gate_results; return expectation → outcome.

    `judged` is the fingerprint of the day's impressions as they were judged, of the gate of the inputs.
    """
    outcomes = {result.expectation: result.outcome for result in results}
    replace_partitions(
        config.tables_dir,
        "gate_results",
        gate_results_rows(results, day=day, stage=stage, model_version=model_version),
        predicate=f"dt = '{day}' AND stage = '{stage}'",
        partitions={
            record_key(day, stage): {"input_fingerprint": input_fingerprint, "counts": outcomes, "judged": judged}
        },
    )
    return dict(outcomes)


def recorded_outcomes(config: Config, day: date, stage: Stage, input_fingerprint: str) -> dict[str, str] | None:
    """Return expectation → outcome as recorded for exactly these inputs, or None."""
    record = partition_records(config.tables_dir, "gate_results").get(record_key(day, stage))
    return record.counts if record is not None and record.input_fingerprint == input_fingerprint else None


def recorded_days(config: Config, stage: Stage) -> dict[date, PartitionRecord]:
    """Return what was recorded of each day that the stage has judged; `counts` are expectation → outcome."""
    records = partition_records(config.tables_dir, "gate_results")
    keys = {key: key.partition("/") for key in records}
    return {date.fromisoformat(day): records[key] for key, (day, _, of) in keys.items() if of == stage}


def accepted_days(config: Config, day: date | None = None) -> dict[date, str]:
    """Return the days, or of one day whether it is one, whose inputs were accepted by hand, each with the reason given."""
    rows = read_table(
        config.tables_dir,
        "gate_results",
        columns=["dt", "observed"],
        partitions=f"dt = '{day}'" if day else None,
        filters=(pc.field("stage") == "validate_inputs") & (pc.field("outcome") == "accepted"),
    )
    return dict(zip(rows["dt"].to_pylist(), rows["observed"].to_pylist(), strict=True))


def what_failed(config: Config, day: date, stage: Stage) -> str:
    """Return what failed or errored as recorded of the day, each with what was found and what is required."""
    rows = read_table(
        config.tables_dir,
        "gate_results",
        columns=["expectation", "outcome", "observed", "required"],
        partitions=f"dt = '{day}'",
        filters=(pc.field("stage") == stage) & pc.field("outcome").isin(["failed", "errored"]),
    ).to_pylist()
    return "; ".join("{expectation} {outcome}: {observed}, required is {required}".format(**row) for row in rows)


def record_key(day: date | str, stage: Stage) -> str:
    """Return the key under which a commit of gate_results names the day and stage."""
    return f"{day}/{stage}"


def is_refused(outcomes: Mapping[str, str]) -> bool:
    """Return whether something failed or errored and nobody accepted it by hand."""
    return bool(refusal(outcomes)) and "accepted" not in outcomes.values()


def refusal(outcomes: Mapping[str, str]) -> str:
    """Return the expectations that failed or errored as one phrase, "" when there is none."""
    return "; ".join(f"{name} {outcome}" for name, outcome in outcomes.items() if outcome in ("failed", "errored"))
