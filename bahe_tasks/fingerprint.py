"""Fingerprints: whether the inputs of a stage are still the ones its output was made from.

A fingerprint is the sha256 of a JSON document with sorted keys. A stage whose output already carries the fingerprint
of its inputs has nothing to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any


def fingerprint(**parts: Any) -> str:
    """Return the sha256 (64 hex digits) of the named parts: JSON values, dates, paths and dataclasses."""
    document = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(document.encode("utf-8")).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, date | Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")
