"""Take the champion back to an earlier passed version, and publish that version's embeddings again."""

from __future__ import annotations

from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.stages.publish_embeddings import publish_embeddings
from bahe_tasks.stores.model_promotion import rollback
from bahe_tasks.stores.model_registry import champion as current_champion
from bahe_tasks.stores.model_registry import connect


def roll_back(config: Config, *, to: int | None, reason: str) -> dict[str, Any]:
    """Return the champion, the version that was it before, the versions withdrawn and what was published. Raises `RollbackError`.

    One that was cut short is finished by running it again; where the champion had moved already, it was it before.
    """
    registry = connect(config)
    before = current_champion(registry)
    champion, withdrawn = rollback(registry, to=to, reason=reason)
    published = publish_embeddings(champion.day, config, version=champion.version)
    return {
        "champion_version": champion.version,
        "champion_before": before.version if before else None,
        "day": str(champion.day),
        "withdrawn_versions": [version.version for version in withdrawn],
        "reason": reason,
        "published": published,
    }
