"""Stage 7: the champion becomes this version, if the rules allow it. Nothing else but a rollback moves the alias."""

from __future__ import annotations

from datetime import date
from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.stores.model_promotion import promote
from bahe_tasks.stores.model_registry import champion, connect, version_of


def promote_champion(day: date, config: Config, *, version: int) -> dict[str, Any]:
    """Return {"promoted", "reason", "champion_version", "withdrawn"}: a backfilled older day never takes the alias from a newer one.

    "withdrawn" tells whether a rollback took the version out of force: then its day has no model of its rows.
    """
    registry = connect(config)
    promoted, reason = promote(registry, version)
    current = champion(registry)
    return {
        "promoted": promoted,
        "reason": reason,
        "champion_version": current.version if current else None,
        "withdrawn": version_of(registry, version).withdrawn,
    }
