"""Stage 5: the fine-tuned model becomes a version of the registered model, alias `challenger`, with its lineage."""

from __future__ import annotations

from datetime import date
from typing import Any

from bahe_tasks.config import Config
from bahe_tasks.stores.model_promotion import register
from bahe_tasks.stores.model_registry import connect, version_of


def register_challenger(day: date, config: Config, *, run_id: str) -> dict[str, Any]:
    """Return {"version": v}: the version of this run, created together with its tags if it did not exist.

    The tags of the version are those of the run: what it was trained from was written down while it was trained.
    """
    registry = connect(config)
    tags = {
        name: value
        for name, value in registry.client.get_run(run_id).data.tags.items()
        if value and not name.startswith("mlflow.")
    }
    parent = tags.get("parent_version")
    version = register(
        registry,
        run_id,
        day=day,
        input_fingerprint=tags["input_fingerprint"],
        encoder_version=tags["encoder_version"],
        parent=version_of(registry, int(parent)) if parent else None,
        tags=tags,
        force=True,  # a run trained anew on purpose has the fingerprint of the one before it
    )
    return {"version": version}
