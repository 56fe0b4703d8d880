"""Writing files into the landing folder: one place for its paths and for whole-or-nothing writes.

A file appears under its name complete or not at all, and one that already holds the same bytes is not touched, so
that importing again changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any


def landing_file(landing: Path, source: str, day: date, name: str) -> Path:
    """Return LANDING/source/dt=day/name."""
    return landing / source / f"dt={day.isoformat()}" / name


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the rows as JSON lines, UTF-8, one newline after each; the same rows give the same bytes."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    return "".join(f"{encode(row)}\n" for row in rows).encode("utf-8")


def write_whole(path: Path, content: bytes) -> bool:
    """Write the file through a temporary one and a rename; return whether anything had to change.

    The temporary name starts with a dot, which Spark and the shell pass over should a kill leave it behind.
    """
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return True
