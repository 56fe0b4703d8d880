"""Reading back what a source has landed as JSON lines."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any


def lines(landing: Path, table: str, day: date | str = "*") -> list[str]:
    files = sorted(landing.glob(f"{table}/dt={day}/*.jsonl"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def rows(landing: Path, table: str, day: date | str = "*") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(landing, table, day)]


def tree(landing: Path) -> dict[str, bytes]:
    return {str(p.relative_to(landing)): p.read_bytes() for p in landing.rglob("*") if p.is_file()}
