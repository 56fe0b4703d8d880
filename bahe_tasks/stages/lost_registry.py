"""A day that has no model to go on from although the tables know models of this home: the registry was lost, or exchanged."""

from __future__ import annotations

import logging

from bahe_tasks.config import Config
from bahe_tasks.stages.gate_record import recorded_days
from bahe_tasks.stores.model_registry import Registry, tags_of_all_versions
from bahe_tasks.stores.partition_records import partition_records

_LOG = logging.getLogger(__name__)


def warn_of_lost_registry(registry: Registry, config: Config) -> None:
    """Say so where models of this home were judged and the registry holds none of them. For a day without a parent.

    Another lineage, begun by another `registry.model_name` in the same registry, is told of nothing: the models before are there.
    """
    judged = recorded_days(config, "validate_challenger")
    if not judged:
        return
    published = {
        record.counts["model"]
        for record in partition_records(config.tables_dir, "item_embeddings").values()
        if record.counts.get("model")
    }
    known = {tags["input_fingerprint"] for tags in tags_of_all_versions(registry) if tags.get("input_fingerprint")}
    if known & published or (known and not published):
        return
    _LOG.warning(
        "the tables tell of models of %d days up to %s, and the registry holds none of them: this day's model goes on from "
        "none and is judged against none. Unless that is on purpose, put the registry back (of a home without "
        "registry.tracking_uri the file mlflow/mlflow.db, from a backup) and run the day again",
        len(judged),
        max(judged),
    )
