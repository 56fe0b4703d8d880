"""What running one day came to, whichever engine ran it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from bahe_tasks.landing import landed_files, not_read, passed_over

Progress = Callable[[date, str, int, int], None]
"""Called with day, task, units done and units in all; a task starts with (0, 0)."""

TASK_ORDER = (
    "dedup_behaviors",
    "validate_inputs",
    "encode_behaviors",
    "fine_tune",
    "register_challenger",
    "validate_challenger",
    "promote_champion",
    "publish_embeddings",
)


@dataclass(frozen=True)
class DayOutcome:
    """One day: how it ended, and per task its state, its seconds and the small JSON document it returned.

    `state` is "done", "no_impressions", "no_training_rows", "refused" (by a gate) or "failed"; `message` says why
    a day was refused or failed, or has no model in force, or what lies where its impressions should. Of an error that was raised in this process, `traceback` says where it
    came from and `wrong_use` whether a setting is to be mended.
    """

    day: date
    state: Literal["done", "no_impressions", "no_training_rows", "refused", "failed"]
    seconds: float
    task_states: dict[str, str] = field(default_factory=dict)
    task_seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    message: str = ""
    traceback: str = ""
    wrong_use: bool = False


def why_without_model(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why a day that is done has no model in force, "" where it may have one: a rollback withdrew what it made."""
    promoted = results.get("promote_champion", {})
    return str(promoted["reason"]) if promoted.get("withdrawn") else ""


def why_no_impressions(day: date, results: Mapping[str, Mapping[str, Any]], landing_dir: Path) -> str:
    """Return what lies where the impressions of a day without any should, "" where nothing does or rows did: a feed may be dead."""
    told = []
    files = landed_files(landing_dir, "impressions", day)
    if files and results.get("dedup_behaviors", {}).get("impressions", {}).get("landed") == 0:
        told.append(f"files without a row in impressions/dt={day}: {files[0].name}" + (", …" if len(files) > 1 else ""))
    if others := passed_over(landing_dir, "impressions", day):
        told.append(not_read(others))
    return "; ".join(told)
