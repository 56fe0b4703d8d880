"""Which model, when: the rules over registered versions, as pure functions.

Parent, promotion and rollback are decided from the tags of the versions alone, never from the order in which runs
happened to finish. A backfilled older day never takes the champion from a newer one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from bahe_tasks.wrong_use import WrongUseError

GateState = Literal["pending", "passed", "refused", "errored"]
ROLLING_BACK = "rolling_back"
"""Tag of a version that a rollback goes to, until that version's embeddings are published."""


class RollbackError(WrongUseError):
    """A rollback that has no version to go to."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version. `day` is the newest day it was trained on; `reason` says why it was refused or withdrawn."""

    version: int
    day: date
    fingerprint: str
    run_id: str
    encoder_version: str
    gate: GateState = "pending"
    parent_version: int | None = None
    parent_fingerprint: str | None = None
    superseded: bool = False
    withdrawn: bool = False
    reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def eligible(self) -> bool:
        """Whether it may be a parent, a reference or the champion: gate passed, not superseded, not withdrawn."""
        return self.gate == "passed" and not self.superseded and not self.withdrawn


def eligible(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return the eligible versions, by data day, then by version."""
    return sorted((v for v in versions if v.eligible), key=_by_day)


def parent_for(versions: Iterable[ModelVersion], day: date) -> ModelVersion | None:
    """Return the version the fine-tune of `day` starts from and the gate compares with, `None` when there is none.

    It is the eligible version with the greatest data day before `day`, whatever the champion is now: a newer champion
    has already seen `day`.
    """
    earlier = [v for v in eligible(versions) if v.day < day]
    return earlier[-1] if earlier else None


def stale(versions: Iterable[ModelVersion]) -> frozenset[int]:
    """Return the versions that have another parent than `parent_for` gives today, or one that is stale itself.

    They were trained from weights that would not be taken today; backfilling their days, oldest first, mends it.
    """
    known: list[ModelVersion] = sorted(versions, key=_by_day)
    standing, found = eligible(known), set()
    days = [v.day for v in standing]
    for version in known:
        place = bisect_left(days, version.day)
        parent = standing[place - 1] if place else None  # as `parent_for`
        of_parent = parent.fingerprint if parent else None
        if version.parent_fingerprint != of_parent or (parent and parent.version in found):
            found.add(version.version)
    return frozenset(found)


def superseded_by(versions: Iterable[ModelVersion], passed: ModelVersion) -> list[ModelVersion]:
    """Return the versions that a newly passed version of their day replaces."""
    return [v for v in versions if v.eligible and v.day == passed.day and v.version != passed.version]


def promotion_decision(
    candidate: ModelVersion, champion: ModelVersion | None, *, newest: ModelVersion | None = None
) -> tuple[bool, str]:
    """Return whether the champion becomes `candidate`, and why.

    Only an eligible version may; it does if and only if its data day is not before the champion's or, where the gate has
    refused the champion since, that of the `newest` eligible version.
    """
    if candidate.gate != "passed":
        return False, f"version {candidate.version} has not passed the gate ({candidate.gate})"
    if candidate.withdrawn:
        anew = f"`bahe run-day {candidate.day} --force` trains the day anew"
        return False, f"version {candidate.version} was withdrawn: {candidate.reason}; {anew}"
    if candidate.superseded:
        return False, f"version {candidate.version} was superseded by a newer version of {candidate.day}"
    if champion is None:
        return True, f"version {candidate.version} of {candidate.day} is the first champion"
    if champion.version == candidate.version:
        return False, f"version {candidate.version} of {candidate.day} is the champion already"
    if champion.gate != "passed" and newest is not None and candidate.day < newest.day:
        return (
            False,
            f"{candidate.day} is before {newest.day}, the newest day in force; champion {champion.version} was refused",
        )
    if champion.gate != "passed":
        return True, f"version {candidate.version} of {candidate.day} replaces {champion.version}, refused since"
    if candidate.day < champion.day:
        return False, f"{candidate.day} is before {champion.day}, the day of champion {champion.version}"
    return True, f"version {candidate.version} of {candidate.day} follows champion {champion.version} of {champion.day}"


def rollback_target(versions: Iterable[ModelVersion], champion: ModelVersion | None, *, to: int | None) -> ModelVersion:
    """Return the version a rollback goes to: version `to`, or the eligible one of the last day before the champion's.

    A champion whose own rollback was cut short is gone to again: whoever repeats the command does not mean the day before it.
    `to` may be a version that was superseded by a later one of its day; it must have passed and not be withdrawn.
    Raises `RollbackError`.
    """
    known = list(versions)
    if champion is None:
        raise RollbackError("there is no champion to roll back from: no version has been promoted yet")
    if to is None and ROLLING_BACK in champion.tags:
        return champion
    if to is None:
        target = parent_for(known, champion.day)
        if target is None:
            raise RollbackError(
                f"no eligible version is older than {champion.day}, the day of champion {champion.version}"
            )
        return target
    named = next((v for v in known if v.version == to), None)
    if named is None:
        raise RollbackError(f"there is no version {to}; known are {sorted(v.version for v in known)}")
    if named.gate != "passed" or named.withdrawn:
        state = f"was withdrawn ({named.reason})" if named.withdrawn else f"has not passed the gate ({named.gate})"
        raise RollbackError(f"version {to} {state}; eligible are {[v.version for v in eligible(known)]}")
    if named.day > champion.day:
        raise RollbackError(f"version {to} of {named.day} is newer than champion {champion.version} of {champion.day}")
    return named


def withdrawn_by_rollback(versions: Iterable[ModelVersion], target: ModelVersion) -> list[ModelVersion]:
    """Return the versions a rollback to `target` withdraws: those of later days, later ones of its day, and what stood for its day.

    Superseded ones too: what superseded them goes, and running their day again must not bring them back. So are those a gate is about to
    judge; what no gate let pass stays as it is.
    """
    may_stand = (
        v for v in versions if v.gate in ("passed", "pending") and not v.withdrawn and v.version != target.version
    )
    return sorted(
        (v for v in may_stand if _by_day(v) > _by_day(target) or (v.day == target.day and v.eligible)), key=_by_day
    )


def _by_day(version: ModelVersion) -> tuple[date, int]:
    return version.day, version.version
