"""The MLflow registry, written: register a version, record its gate, promote it, roll back.

`promote` and `rollback` are the only code that moves the alias `champion`; the rules are in promotion_rules.py. Every
function may be run again after a kill: it then finishes what is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Literal

from bahe_tasks.stores.fine_tune_runs import LOGGED_MODEL_TAG
from bahe_tasks.stores.model_registry import (
    CHALLENGER,
    CHAMPION,
    Registry,
    VersionNotFoundError,
    aliases,
    champion,
    version_of,
    versions,
)
from bahe_tasks.stores.promotion_rules import (
    ROLLING_BACK,
    ModelVersion,
    eligible,
    promotion_decision,
    rollback_target,
    superseded_by,
    withdrawn_by_rollback,
)

_OF_ALL_VERSIONS = (
    "Click-through-rate model, trained on one day after the other. "
    f"Alias {CHAMPION}: the version in force; alias {CHALLENGER}: the newest one."
)


class RegistrationError(ValueError):
    """A run that cannot become a version."""


def register(
    registry: Registry,
    run_id: str,
    *,
    day: date,
    input_fingerprint: str,
    encoder_version: str,
    parent: ModelVersion | None,
    tags: Mapping[str, str],
    force: bool = False,
) -> int:
    """Make a version of a finished run, together with its tags, put the alias `challenger` on it if it is the newest, and return it.

    A version with the same fingerprint is returned instead of a second one; with `force`, only one of the same run
    is. `tags` are the rest of the lineage. Raises `RegistrationError` for a run that is not finished.
    """
    number = _existing(registry, run_id, input_fingerprint=input_fingerprint, force=force)
    if number is None:
        own = {"day": day.isoformat(), "input_fingerprint": input_fingerprint, "encoder_version": encoder_version}
        if parent is not None:
            own |= {"parent_version": str(parent.version), "parent_fingerprint": parent.fingerprint}
        number = _create(registry, run_id, tags={**tags, **own})
    if aliases(registry).get(CHALLENGER, 0) < number:
        registry.client.set_registered_model_alias(registry.model_name, CHALLENGER, str(number))
    return number


def record_gate(
    registry: Registry, version: int, outcome: Literal["passed", "refused", "errored"], *, reason: str = ""
) -> ModelVersion:
    """Record what the gate said of a version and return it.

    A version that passes is the one of its day: older passed ones are superseded, and it no longer is, should it have
    been. One that does not pass supersedes nothing, and what it superseded before is current again unless another one of its
    day is. One that was withdrawn changes nothing, and one whose parent was while it was trained is withdrawn too.
    """
    name, client = registry.model_name, registry.client
    client.set_model_version_tag(name, str(version), "gate_reason", reason)
    client.set_model_version_tag(name, str(version), "gate", outcome)
    judged = version_of(registry, version)
    if outcome == "passed" and not judged.withdrawn and (parent := _withdrawn_parent(registry, judged)) is not None:
        client.set_model_version_tag(name, str(version), "withdrawn", f"its parent, version {parent}, was withdrawn")
        judged = version_of(registry, version)
    of_day = versions(registry, day=str(judged.day))
    if judged.withdrawn:
        pass
    elif outcome == "passed":
        if judged.superseded:
            client.delete_model_version_tag(name, str(version), "superseded_by")
        for older in superseded_by(of_day, judged):
            client.set_model_version_tag(name, str(older.version), "superseded_by", str(version))
    elif not eligible(of_day):
        for older in versions(registry, superseded_by=str(version)):
            client.delete_model_version_tag(name, str(older.version), "superseded_by")
    client.update_model_version(name, str(version), description=_description(judged, outcome, reason))
    return version_of(registry, version)


def supersede_day(registry: Registry, day: date) -> None:
    """Take the versions of a day that has no rows to train on any more out of force; one that passes again is in force again."""
    for version in eligible(versions(registry, day=str(day))):
        registry.client.set_model_version_tag(
            registry.model_name, str(version.version), "superseded_by", "a day without rows"
        )


def promote(registry: Registry, version: int) -> tuple[bool, str]:
    """Move the alias `champion` to `version` if the rules allow it; return whether it moved, and why."""
    current = champion(registry)
    standing = eligible(versions(registry)) if current is not None and current.gate != "passed" else []
    newest = standing[-1] if standing else None
    moves, reason = promotion_decision(version_of(registry, version), current, newest=newest)
    if moves:
        registry.client.set_registered_model_alias(registry.model_name, CHAMPION, str(version))
    return moves, reason


def rollback(registry: Registry, *, to: int | None, reason: str) -> tuple[ModelVersion, list[ModelVersion]]:
    """Put the champion back to version `to`, or to the day before it; return the champion and what was withdrawn.

    Every later version that passed or is about to be judged is withdrawn with `reason`, so that no later day starts from it. `end_rollback` ends it.
    Raises `RollbackError` when there is nothing to go back to.
    """
    known = versions(registry)
    current = champion(registry)
    target = rollback_target(known, current, to=to)
    withdrawn = withdrawn_by_rollback(known, target)
    if current is not None and current.version not in (target.version, *(v.version for v in withdrawn)):
        withdrawn.append(current)  # one that the gate has refused since
    name, client = registry.model_name, registry.client
    for later in withdrawn:
        client.set_model_version_tag(name, str(later.version), "withdrawn", reason or "rolled back")
    if target.superseded:
        client.delete_model_version_tag(name, str(target.version), "superseded_by")
    # The alias moves last, to a version that says so: a rollback that was cut short finds the same target when it is run again.
    client.set_model_version_tag(name, str(target.version), ROLLING_BACK, "true")
    client.set_registered_model_alias(name, CHAMPION, str(target.version))
    return version_of(registry, target.version), [version_of(registry, v.version) for v in withdrawn]


def end_rollback(registry: Registry, version: int) -> None:
    """Record that all that a rollback to `version` does is done."""
    if ROLLING_BACK in version_of(registry, version).tags:
        registry.client.delete_model_version_tag(registry.model_name, str(version), ROLLING_BACK)


def _withdrawn_parent(registry: Registry, version: ModelVersion) -> int | None:
    """Return the number of the version's parent if that was withdrawn; one that was deleted on MLflow's page was not."""
    if version.parent_version is None:
        return None
    try:
        parent = version_of(registry, version.parent_version)
    except VersionNotFoundError:
        return None
    return parent.version if parent.withdrawn else None


def _description(judged: ModelVersion, outcome: str, reason: str) -> str:
    """Return what MLflow's page of the versions shows beside a version."""
    parent = "from pre-trained weights" if judged.parent_version is None else f"from version {judged.parent_version}"
    return f"{judged.day}, trained {parent}. Gate {outcome}" + (f": {reason}" if reason else ".")


def _existing(registry: Registry, run_id: str, *, input_fingerprint: str, force: bool) -> int | None:
    same = [v for v in versions(registry, input_fingerprint=input_fingerprint) if not force or v.run_id == run_id]
    return same[-1].version if same else None


def _create(registry: Registry, run_id: str, *, tags: Mapping[str, str]) -> int:
    import mlflow
    from mlflow.exceptions import MlflowException

    run = registry.client.get_run(run_id)
    model_id = run.data.tags.get(LOGGED_MODEL_TAG)
    if run.info.status != "FINISHED" or not model_id:
        raise RegistrationError(
            f"MLflow run {run_id} is {run.info.status}, not a finished fine_tune: run fine_tune again"
        )
    mlflow.set_tracking_uri(registry.tracking_uri)  # MLflow resolves models:/ with the process's address
    try:
        registry.client.create_registered_model(registry.model_name, description=_OF_ALL_VERSIONS)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = registry.client.create_model_version(
        registry.model_name, source=f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
    )
    return int(made.version)
