"""Maintenance between days: every table's small files merged, and on request files that nothing reads deleted.

No row changes, no record of a day, no fingerprint; so a day run again afterwards still finds everything done. Rebuilding
a model version reads the table versions in its tags: what those name is never deleted.
"""

from __future__ import annotations

from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.compact_tables import compact_table
from bahe_tasks.stores.model_registry import connect, tags_of_all_versions

_LEAST_DAYS = 7
"""Delta's own default: no reader or writer is at work for longer."""


def compact_tables(config: Config, *, vacuum: bool = False) -> dict[str, Any]:
    """Return for each table its data files before and after, and those deleted; `kept_days` where any may be.

    `vacuum`: delete files that left their table more than `kept_days` ago, unless a registered version of any model pins
    a table version that reads them.
    """
    kept_days = max(_LEAST_DAYS, config.sequences.history_days, config.training.window_days + config.gate.gate_days)
    pinned = _pinned_versions(config) if vacuum else {}
    done = {
        name: compact_table(
            config.tables_dir, name, delete_after_days=kept_days if vacuum else None, pinned=pinned.get(name, ())
        )
        for name in TABLES
    }
    tables = {name: compacted._asdict() for name, compacted in done.items() if compacted is not None}
    return {"tables": tables} | ({"kept_days": kept_days} if vacuum else {})


def _pinned_versions(config: Config) -> dict[str, set[int]]:
    """Return the versions of each table that model versions, of whatever lineage, were trained from."""
    pinned: dict[str, set[int]] = {}
    for tags in tags_of_all_versions(connect(config)):
        for tag, value in tags.items():
            kind, _, name = tag.partition(".")
            if kind == "table_version" and name:
                pinned.setdefault(name, set()).add(int(value))
    return pinned
