"""Batch scoring with the champion: click probabilities of (user_id, item_id) pairs from the published embeddings.

While those of a new champion are not published yet, the version in force before it scores, whose embeddings still are.
A user that is not published, for want of anything done in the last `publish_days`, has the history of the end of the champion's day, read now; one
without any is an empty history. An item that is not published but has a title, in the file or in the table items,
is encoded, and so is a title of the file that is not the published one; without a title an item gets the model's vector for unknown items. Where the user side depends on the item
(`head: din`, `item_reading: beside`) no published embedding is read: histories and titles pass through the model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.model_files import load_model
from bahe_tasks.core.model_spec import check_encoder
from bahe_tasks.core.score import item_embeddings, score_pairs, user_embeddings
from bahe_tasks.data_interval import end_us
from bahe_tasks.stages.histories_as_of import histories_as_of
from bahe_tasks.stages.pair_file import check_columns, check_out, read_pairs, write_pairs
from bahe_tasks.stages.pair_items import (
    ItemColumns,
    columns_of,
    describe_items,
    given_titles,
    pair_columns,
    unread_columns,
)
from bahe_tasks.stages.pair_sums import published_pair_sums
from bahe_tasks.stages.pair_texts import index_of_texts, title_rows
from bahe_tasks.stages.publish_embeddings import published_record
from bahe_tasks.stages.score_with_histories import score_with_histories
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import Registry, connect, local_model_folder, models_with_champion, versions
from bahe_tasks.stores.model_registry import champion as current_champion
from bahe_tasks.stores.partition_records import PartitionRecord
from bahe_tasks.stores.promotion_rules import ModelVersion, eligible


class NothingToScoreWithError(LookupError):
    """There is no champion, or neither its embeddings nor those of a version in force before it are published."""


def score_file(pairs: Path, out: Path, config: Config) -> dict[str, Any]:
    """Write the pairs with a column `click_probability`; return counts, and columns that the model does not know.

    `users_without_history` are users of whom the model has no behavior to read, published or not; `items_not_published`
    those without a published embedding, whether they have a title or not. `model_version` is the version that scored,
    another than `champion_version` while that one's day is between promotion and publishing. Raises `ScoreFileError` and
    `NothingToScoreWithError`.
    """
    check_out(out)
    frame = read_pairs(pairs)
    check_columns(frame, out)
    registry = connect(config)
    champion = current_champion(registry)
    if champion is None:
        raise NothingToScoreWithError(_no_champion(registry))
    version, record = _published_version(champion, registry, config)
    model, spec = load_model(local_model_folder(registry, version.version))
    check_encoder(spec, encoder_version=encoder_version(config.encoder))  # what is not stored is encoded now
    not_read = unread_columns(frame, spec)
    score_all = _score_published if model.spec.model.user_is_cacheable else score_with_histories
    read = frame.drop(columns=not_read)
    frame["click_probability"], new_users = score_all(read, model, version, config)
    items = pd.Index(frame["item_id"].unique())
    published = _published("item_embeddings", "item_id", items, version, config, columns=["item_id"])
    if published_record(version, config) != record:
        raise NothingToScoreWithError(f"embeddings of version {version.version} were replaced meanwhile: score again")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pairs(frame, out)
    return {
        "pairs": len(frame),
        "model_version": version.version,
        "champion_version": champion.version,
        "users_without_history": new_users,
        "items_not_published": len(items) - published.num_rows,
        "columns_not_read": not_read,
        "out": str(out),
    }


def _published_version(
    champion: ModelVersion, registry: Registry, config: Config
) -> tuple[ModelVersion, PartitionRecord]:
    """Return the champion, or while it is not published whole the newest version in force before it that is; and its record.

    Never one of a later day: whoever moved the champion back wants none of them. Raises `NothingToScoreWithError`.
    """
    if (record := published_record(champion, config)) is not None:
        return champion, record
    for version in reversed(eligible(versions(registry))):
        if version.day < champion.day and (record := published_record(version, config)) is not None:
            return version, record
    raise NothingToScoreWithError(
        f"embeddings of champion {champion.version} are not published, nor are those of a version in force before it: "
        f"its day is running now, or was cut short and is to be run again: `bahe run-day {champion.day}`"
    )


def _no_champion(registry: Registry) -> str:
    """Return what to do; the setting may name another registered model than the days that were run."""
    told = f"registered model {registry.model_name} has no champion; run a day first: `bahe run-day DAY`"
    others = models_with_champion(registry)
    return told if not others else f"{told}, or set registry.model_name to one that has: {', '.join(others)}"


def _score_published(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, int]:
    """Return the click probability of each pair (P,), and how many users have no behavior that the model reads."""
    users, user_of, new_users = _user_vectors(frame, model, champion, config)
    items, item_of, known, titles = _item_vectors(frame, model, champion, config)
    cat, num = pair_columns(frame, known)
    probabilities = score_pairs(
        model,
        users,
        items,
        user_of=user_of,
        item_of=item_of,
        user_ids=frame["user_id"].to_numpy(dtype=object),
        item_ids=frame["item_id"].to_numpy(dtype=object),
        cat=cat,
        num=num,
        sums=published_pair_sums(frame, titles, cat, champion, config),
        device=pick_device(config.encoder.device),
    )
    return probabilities, new_users


def _user_vectors(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return user embeddings (U, N·(E + X)) float32, each pair's row in them (P,), and how many users are an empty history."""
    wanted = pd.Index(frame["user_id"].unique())
    table = _published("user_embeddings", "user_id", wanted, champion, config)
    published = table["user_id"].to_pylist()
    device = pick_device(config.encoder.device)
    empty = user_embeddings(
        model, {}, np.zeros(1, np.int64), np.zeros((0, model.deep.width), "<f2"), batch_size=1, device=device
    )
    others = wanted.difference(published)
    idle, of_idle = _idle_users(others, model, champion, config) if len(others) else ([], empty[:0])
    vectors = np.concatenate([_vectors(table, empty.shape[1]), of_idle, empty])
    known = pd.Index([*published, *idle])  # -1, of others, is the empty history, the last row
    row, row_of_one = (known.get_indexer(users) for users in (pd.Index(frame["user_id"]), wanted))
    is_empty = (vectors == empty).all(1)  # what is learned of an empty history is published as it is, to the bit
    return vectors, row % len(vectors), int(is_empty[row_of_one].sum())


def _idle_users(
    users: pd.Index, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[list[str], np.ndarray]:
    """Return those of the users that have a history at the end of the champion's day, and their embeddings (U, N·(E + X)) float32."""
    history = histories_as_of(sorted(users), champion.day, config)
    history = replace(history, users=pd.Index(sorted(history.events["user_id"].unique()), dtype=object))
    index = index_of_texts(history.texts["text"].to_pylist(), model, champion.day, config)
    vectors = user_embeddings(
        model,
        history.histories(index),
        np.full(len(history.users), end_us(champion.day), np.int64),
        index.vectors,
        batch_size=config.training.scored_at_once,
        device=pick_device(config.encoder.device),
    )
    return history.users.tolist(), vectors


def _item_vectors(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, np.ndarray, ItemColumns, dict[str, str]]:
    """Return item embeddings (I, E) float32, each pair's row in them (P,), columns and titles."""
    wanted = pd.Index(frame["item_id"].unique())
    table = _published("item_embeddings", "item_id", wanted, champion, config)
    known = {row["item_id"]: columns_of(row) for row in table.select(["item_id", "cat", "num"]).to_pylist()}
    stored, described = describe_items(sorted(wanted), champion.day, config)
    titles = stored | given_titles(frame)
    to_encode = sorted(item for item in wanted if item not in known or titles.get(item) != stored.get(item))
    index = index_of_texts((titles[item] for item in to_encode if item in titles), model, champion.day, config)
    device = pick_device(config.encoder.device)
    extra = item_embeddings(model, title_rows(index, titles, to_encode), index.vectors, batch_size=256, device=device)
    vectors = np.concatenate([_vectors(table, model.parts.of_item), extra])
    # An item whose title the file gives anew stands twice: the later row is read.
    row_of = {item: row for row, item in enumerate([*table["item_id"].to_pylist(), *to_encode])}
    row = np.array([row_of[item] for item in frame["item_id"]], np.int64)
    return vectors, row, described | known, titles


def _published(
    name: str,
    id_column: str,
    wanted: pd.Index,
    champion: ModelVersion,
    config: Config,
    *,
    columns: list[str] | None = None,
) -> pa.Table:
    return read_table(
        config.tables_dir,
        name,
        columns=columns,
        partitions=f"model_version = {champion.version}",
        filters=pc.field(id_column).isin(pa.array(wanted, pa.string())),
    )


def _vectors(table: pa.Table, width: int) -> np.ndarray:
    return np.frombuffer(b"".join(table["embedding"].to_pylist()), "<f4").reshape(table.num_rows, width)
