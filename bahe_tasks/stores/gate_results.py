"""Rows of the table gate_results: what each expectation of a gate said on a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.expectations import ExpectationResult, expectation_name, required_of

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation


def not_enough_evidence(suites: Mapping[str, Sequence[Expectation]], *, observed: str) -> list[ExpectationResult]:
    """Return the results of expectations that were not asked; `observed` says what there was, for example "3 rows"."""
    return [
        ExpectationResult(
            expectation_name(frame, expectation), "not_enough_evidence", observed, required_of(expectation)
        )
        for frame, expectations in suites.items()
        for expectation in expectations
    ]


def gate_results_rows(
    results: Iterable[ExpectationResult],
    *,
    day: date,
    stage: Literal["validate_inputs", "validate_challenger"],
    model_version: int | None,
) -> pa.Table:
    """Return the results as rows of `gate_results`; `model_version` is null for the gate of the inputs."""
    rows = [
        {
            "dt": day,
            "stage": stage,
            "model_version": model_version,
            "expectation": result.expectation,
            "outcome": result.outcome,
            "observed": result.observed,
            "required": result.required,
        }
        for result in results
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("gate_results"))
