"""Stage 6: the gate. New embeddings, coverage of what the model reads, and the challenger against its reference.

The reference is the challenger's parent, not whatever the alias says now. An expectation that errors counts as failed.
A refused challenger is kept with its results, and the champion stays. One whose parent was rolled back or trained anew since, or
whose day landed or was set anew, is not judged: a run that was cut short may go on long after another one of its day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import numpy as np

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config
from bahe_tasks.core.model_files import load_model
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.stages.behavior_digests import digest_set, digests_of
from bahe_tasks.stages.challenger_evidence import challenger_metrics
from bahe_tasks.stages.days_in_force import check_inputs_passed, training_fingerprint, window_fingerprints
from bahe_tasks.stages.embedding_index import are_stored
from bahe_tasks.stages.errors import GateRefused, InputsChangedError, ParentChangedError
from bahe_tasks.stages.gate_record import record_results, recorded_outcomes, refusal
from bahe_tasks.stages.mapped_window import MappedWindow, map_window
from bahe_tasks.stages.training_days import training_days
from bahe_tasks.stages.window import read_window
from bahe_tasks.stages.work_folders import forget_day
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.expectations import ExpectationResult, validate
from bahe_tasks.stores.fine_tune_runs import log_metrics
from bahe_tasks.stores.gate_frames import ChallengerMetrics, embedding_frames
from bahe_tasks.stores.gate_results import not_enough_evidence
from bahe_tasks.stores.gate_suites import challenger_suites, embedding_suites
from bahe_tasks.stores.model_promotion import record_gate
from bahe_tasks.stores.model_registry import (
    CHAMPION,
    Registry,
    aliases,
    connect,
    is_withdrawn,
    local_model_folder,
    parent_of,
    version_of,
)
from bahe_tasks.stores.promotion_rules import ModelVersion

_STAGE: Final = "validate_challenger"


def validate_challenger(day: date, config: Config, *, version: int, force: bool = False) -> dict[str, Any]:
    """Return {"gate": "passed", ...}; record every expectation in gate_results, Data Docs and the version's tags.

    Raises `GateRefused` when an expectation failed or errored, `InputsChangedError` where it is not to be judged.
    """
    registry = connect(config)
    challenger = version_of(registry, version)
    reference, trained_days = _made_from(registry, challenger, config)
    stage_fingerprint = fingerprint(
        stage=_STAGE,
        challenger=[challenger.version, challenger.fingerprint],
        reference=reference.fingerprint if reference else None,
        impressions=window_fingerprints(day, config, trained_days),
        gate=config.gate,
    )
    outcomes = None if force else recorded_outcomes(config, day, _STAGE, stage_fingerprint)
    if outcomes is None:
        results = _judge(day, config, registry, challenger, reference, trained_days)
        outcomes = record_results(
            config, day, _STAGE, results, model_version=version, input_fingerprint=stage_fingerprint
        )
    forget_day(day, config)  # nothing after this reads the window
    reasons = refusal(outcomes)
    errored = "errored" in outcomes.values()
    _made_from(registry, challenger, config)  # a rollback while it was judged would not have found it
    record_gate(registry, version, "errored" if errored else "refused" if reasons else "passed", reason=reasons)
    if reasons:
        in_force = aliases(registry).get(CHAMPION) == version
        stays = "it is the champion still: `bahe rollback` goes back" if in_force else "the champion stays"
        raise GateRefused(f"challenger {version} of {day} refused: {reasons}; {stays}. See `bahe report`")
    return {"gate": "passed", "version": version, "expectations": len(outcomes)}


def _made_from(
    registry: Registry, challenger: ModelVersion, config: Config
) -> tuple[ModelVersion | None, tuple[date, ...]]:
    """Return parent and training days of a challenger. Raises `InputsChangedError` where its day would be trained otherwise today."""
    day, parent = challenger.day, _parent(registry, challenger)
    check_inputs_passed(day, config)
    trained_days = training_days(registry, day, parent, config)
    today = training_fingerprint(
        day,
        config,
        encoder_version=encoder_version(config.encoder),
        parent_fingerprint=parent.fingerprint if parent else None,
        training_days=trained_days,
    )
    if today != challenger.fingerprint:
        raise InputsChangedError(
            f"version {challenger.version} of {day} was trained from other rows or by other settings than the day has today: "
            "run the day again"
        )
    return parent, trained_days


def _parent(registry: Registry, challenger: ModelVersion) -> ModelVersion | None:
    """Return the version the challenger was trained from. Raises `ParentChangedError` where its day has another one today."""
    parent = parent_of(registry, challenger.day)
    named = challenger.parent_version
    if challenger.parent_fingerprint != (parent.fingerprint if parent else None) or (
        named and is_withdrawn(registry, named)
    ):
        was, now = (f"version {number}" if number else "no version" for number in (named, parent and parent.version))
        raise ParentChangedError(
            f"version {challenger.version} of {challenger.day} was trained from {was}, and its day has {now} for a parent today "
            "(rolled back, or trained anew): run the day again"
        )
    return parent


def _judge(
    day: date,
    config: Config,
    registry: Registry,
    challenger: ModelVersion,
    reference: ModelVersion | None,
    trained_days: Sequence[date],
) -> list[ExpectationResult]:
    """Return the result of every expectation; the numbers they were judged by go to the challenger's MLflow run."""
    model = load_model(local_model_folder(registry, challenger.version))[0]
    parent = load_model(local_model_folder(registry, reference.version))[0] if reference else None
    window = read_window(day, config, trained_days)
    mapped = map_window(window, window.used(config), config, encoder_version=encoder_version(config.encoder))
    metrics = challenger_metrics(window, mapped, config, model, parent)
    judged_by = {f"gate_{name}": float(value) for name, value in vars(metrics).items() if value is not None}
    log_metrics(registry, challenger.run_id, judged_by)
    asked, without_evidence = challenger_suites(metrics, gate=config.gate)
    frames = {**_embedding_frames(day, config, mapped), "challenger": metrics.frame()}
    suites = {**embedding_suites(model.deep.width), **asked}
    results = validate(frames, suites, gx_dir=config.home / "gx", day=day, stage=_STAGE)
    return results + not_enough_evidence(without_evidence, observed=_evidence(metrics))


def _evidence(metrics: ChallengerMetrics) -> str:
    return f"{metrics.rows} held-out rows of {metrics.users} users, {metrics.positives} of them clicks"


def _embedding_frames(day: date, config: Config, mapped: MappedWindow) -> dict[str, Any]:
    """Return the frames of the embeddings the day wrote, and of how many of the keys its windows need are missing."""
    version, in_window = encoder_version(config.encoder), mapped.index.keys
    new = read_table(config.tables_dir, "new_behaviors", columns=["behavior_key"], partitions=f"dt = '{day}'")
    digests = digests_of(new["behavior_key"])
    others = digest_set(digests[in_window.rows_of(digests) < 0])
    stored = are_stored([in_window, others], config, encoder_version=version)
    written = read_table(
        config.tables_dir,
        "behavior_embeddings",
        columns=["behavior_key", "embedding"],
        partitions=f"encoder_version = '{version}' AND dt = '{day}'",
    )
    missing = sum(int(np.count_nonzero(~of_keys)) for of_keys in stored)
    return embedding_frames(written, missing_keys=missing, needed_keys=sum(map(len, stored)))
