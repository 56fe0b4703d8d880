"""Stage 8: user and item embeddings of the champion, and the running sums of what is active, for serving and batch scoring (PAPER.md, step 3).

Users and items active in the last publish_days, as of the end of D, one partition per model version written whole. The
user embedding does not depend on a candidate item, so a pair is scored from two cached vectors and the CTR head. Where
it does (`head: din`, `item_reading: beside`), items are published and no users: `bahe score` reads their histories.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.model_files import load_model
from bahe_tasks.core.model_spec import check_encoder
from bahe_tasks.core.score import item_embeddings, user_embeddings
from bahe_tasks.data_interval import end_us
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.stages.behavior_digests import digests_of
from bahe_tasks.stages.days_in_force import excluded_days
from bahe_tasks.stages.embedding_index import read_embeddings
from bahe_tasks.stages.encode_behaviors import encode_missing
from bahe_tasks.stages.histories_as_of import active_ids, histories_as_of, newest_items
from bahe_tasks.stages.state_as_of import active_state, state_days
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.model_promotion import end_rollback
from bahe_tasks.stores.model_registry import Registry, champion, connect, local_model_folder
from bahe_tasks.stores.partition_records import PartitionRecord, partition_records
from bahe_tasks.stores.promotion_rules import ModelVersion

_PUBLISHED = ("published_sums", "user_embeddings", "item_embeddings")  # in the order of their commits
_DELETED = ""
"""Stands for the fingerprint of a version whose rows were deleted as outdated."""


def publish_embeddings(day: date, config: Config, *, version: int) -> dict[str, Any]:
    """Return {"state": "published", "users", "items"}, or "not_champion" when another version is the champion.

    A rollback that went to this version is done then.
    """
    registry = connect(config)
    current = champion(registry)
    if current is None or current.version != version:
        return {"state": "not_champion", "champion_version": current.version if current else None}
    stage_fingerprint = _fingerprint(day, config, current.fingerprint)
    record = published_record(current, config)
    if record is not None and record.input_fingerprint == stage_fingerprint:
        counts = {name: record.counts[name] for name in ("users", "items")}
    else:
        counts = _publish(day, config, registry, current, stage_fingerprint)
    end_rollback(registry, version)
    return {"state": "published", **counts}


def _publish(
    day: date, config: Config, registry: Registry, current: ModelVersion, stage_fingerprint: str
) -> dict[str, int]:
    """Write the tables of a version; return how many users and items."""
    version = current.version
    first = day - timedelta(days=config.publish.publish_days - 1)
    model, spec = load_model(local_model_folder(registry, version))
    check_encoder(spec, encoder_version=encoder_version(config.encoder))
    cacheable = spec.model.user_is_cacheable
    active_users, active_items = active_ids(first, day, config)
    users = active_users if cacheable else []
    items = newest_items(active_items, day, config)
    history = histories_as_of(users, day, config)
    encode_missing(day, config, _texts(history.texts, items))
    keys = map(digests_of, (history.texts["behavior_key"], items["title_key"]))
    index = read_embeddings(day, config, keys, encoder_version=spec.encoder_version)
    batch_size, device = config.training.scored_at_once, pick_device(config.encoder.device)
    as_of = np.full(len(users), end_us(day), np.int64)
    of_users: np.ndarray = np.zeros((0, 0), np.float32)
    if cacheable:
        of_users = user_embeddings(
            model, history.histories(index), as_of, index.vectors, batch_size=batch_size, device=device
        )
    of_items = item_embeddings(
        model, index.rows_of(items["title_key"]), index.vectors, batch_size=batch_size, device=device
    )
    user_rows = pa.table(
        {
            "model_version": pa.repeat(pa.scalar(version, pa.int32()), len(users)),
            "user_id": pa.array(users, pa.string()),
            "embedding": _blobs(of_users),
        },
        schema=arrow_schema("user_embeddings"),
    )
    item_rows = pa.table(
        {
            "model_version": pa.repeat(pa.scalar(version, pa.int32()), items.num_rows),
            "item_id": items["item_id"],
            "embedding": _blobs(of_items),
            "cat": items["cat"],
            "num": items["num"],
        },
        schema=arrow_schema("item_embeddings"),
    )
    state = active_state(active_users, active_items, items["title"].to_pylist(), day, config)
    state_rows = state.append_column("model_version", pa.repeat(pa.scalar(version, pa.int32()), state.num_rows))
    counts = {"users": user_rows.num_rows, "items": item_rows.num_rows}
    entry = {"input_fingerprint": stage_fingerprint, "counts": {**counts, "model": current.fingerprint}}
    for name, rows in zip(_PUBLISHED, (state_rows, user_rows, item_rows), strict=True):
        outdated = _outdated(version, name, config)
        replace_partitions(
            config.tables_dir,
            name,
            rows,
            predicate=" OR ".join(f"model_version = {v}" for v in [version, *outdated]),
            partitions={str(version): entry, **{str(v): {"input_fingerprint": _DELETED} for v in outdated}},
        )
    return counts


def published_record(version: ModelVersion, config: Config) -> PartitionRecord | None:
    """Return what was recorded when the embeddings of this very model were published; None where they are not there whole.

    Version numbers start anew with another `registry.model_name`, rows of a version are deleted when newer ones are published,
    and a run that was killed leaves tables of different inputs.
    """
    records = [partition_records(config.tables_dir, name).get(str(version.version)) for name in _PUBLISHED]
    *_, newest = records
    if newest is None or newest.counts.get("model") != version.fingerprint:
        return None
    whole = all(record is not None and record.input_fingerprint == newest.input_fingerprint for record in records)
    return newest if whole else None


def _fingerprint(day: date, config: Config, model_fingerprint: str) -> str:
    reach = max(config.sequences.history_days, config.publish.publish_days)
    read = {
        name: {
            dt: record.input_fingerprint
            for dt, record in partition_records(config.tables_dir, name).items()
            if date.fromisoformat(dt) <= day
            and (name == "items" or day - date.fromisoformat(dt) < timedelta(days=reach))
        }
        for name in ("behavior_events", "impressions", "items")
    }
    states = partition_records(config.tables_dir, "running_sums")
    excluded = sorted(d for d in excluded_days(config) if d <= day)
    return fingerprint(
        stage="publish_embeddings",
        model=model_fingerprint,
        read=read,
        state={str(d): states[str(d)].input_fingerprint for d in state_days(day, config)},
        excluded=excluded,
        publish=config.publish,
        sequences=config.sequences,
    )


def _outdated(version: int, name: str, config: Config) -> list[int]:
    """Return the versions beside this one whose rows are there and beyond the last K published."""
    records = partition_records(config.tables_dir, name)
    others = sorted(
        (record.version, int(v))
        for v, record in records.items()
        if int(v) != version and record.input_fingerprint != _DELETED
    )
    kept = config.publish.keep_versions - 1
    return [model_version for _, model_version in (others[:-kept] if kept else others)]


def _texts(behaviors: pa.Table, items: pa.Table) -> pa.Table:
    """Return the distinct (behavior_key, text) of histories and titles."""
    titles = items.select(["title_key", "title"]).rename_columns(["behavior_key", "text"])
    return (
        pa.concat_tables([behaviors, titles])
        .group_by("behavior_key")
        .aggregate([("text", "min")])
        .rename_columns(["behavior_key", "text"])
    )


def _blobs(vectors: np.ndarray) -> pa.Array:
    return pa.array([vector.astype("<f4").tobytes() for vector in vectors], pa.binary())
