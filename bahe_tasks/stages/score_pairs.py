"""Batch scoring with the champion: click probabilities of (user_id, item_id) pairs from the published embeddings.

An unknown user is an empty history. An item that is not published but has a title, in the file or in the table items,
is encoded; without a title it gets the model's vector for unknown items. Where the user side depends on the item
(`head: din`, `item_reading: beside`) nothing is looked up: histories and titles pass through the model.
"""

from __future__ import annotations

import json
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
from bahe_tasks.stages.histories_as_of import newest_items
from bahe_tasks.stages.pair_items import ItemColumns, columns_of, describe_items, pair_columns
from bahe_tasks.stages.pair_sums import published_pair_sums
from bahe_tasks.stages.pair_texts import index_of_texts, title_rows
from bahe_tasks.stages.publish_embeddings import published_record
from bahe_tasks.stages.score_with_histories import score_with_histories
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import champion as current_champion
from bahe_tasks.stores.model_registry import connect, local_model_folder
from bahe_tasks.stores.promotion_rules import ModelVersion


class ScoreFileError(ValueError):
    """A file of pairs that cannot be read or written."""


class NothingToScoreWithError(LookupError):
    """There is no champion, or its embeddings are not published."""


def score_file(pairs: Path, out: Path, config: Config) -> dict[str, Any]:
    """Write the pairs with a column `click_probability`; return counts of pairs and of users and items not published.

    Raises `ScoreFileError` and `NothingToScoreWithError`.
    """
    if out.suffix not in _WRITERS:
        raise ScoreFileError(f"{out}: the ending must be one of {', '.join(_WRITERS)}")
    frame = read_pairs(pairs)
    registry = connect(config)
    champion = current_champion(registry)
    if champion is None:
        raise NothingToScoreWithError("there is no champion; run a day first: `bahe run-day DAY`")
    if published_record(champion, config) is None:
        raise NothingToScoreWithError(
            f"embeddings of champion {champion.version} are not published; run its day: `bahe run-day {champion.day}`"
        )
    model, spec = load_model(local_model_folder(registry, champion.version))
    check_encoder(spec, encoder_version=encoder_version(config.encoder))  # what is not stored is encoded now
    score_all = _score_published if model.spec.model.user_is_cacheable else score_with_histories
    probabilities, new_users, new_items = score_all(frame, model, champion, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](as_given(pairs, frame).assign(click_probability=probabilities), out)
    return {
        "pairs": len(frame),
        "model_version": champion.version,
        "users_without_history": new_users,
        "items_not_published": new_items,
        "out": str(out),
    }


def read_pairs(path: Path) -> pd.DataFrame:
    """Return the pairs of a file, ids as texts. Raises `ScoreFileError`."""
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]).rename(columns=str.strip)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                rows = [_object_of(line, number) for number, line in enumerate(lines, 1) if line.strip()]
                frame = pd.DataFrame(rows, dtype=object)
        elif path.suffix == ".parquet":
            # Nullable types: an integer column with a gap would be read as floats, and 94110 as the category "94110.0".
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
            for column in (c for c in frame if c in ("user_id", "item_id") or str(c).startswith("cat_")):
                if pd.api.types.is_float_dtype(frame[column]):
                    frame[column] = frame[column].astype(object).map(_whole, na_action="ignore")
        else:
            raise ScoreFileError(f"{path}: the ending must be .csv, .jsonl or .parquet")
    except (OSError, ValueError) as error:
        raise ScoreFileError(f"{path} cannot be read: {error}") from error
    frame = frame.reset_index(drop=True)
    for column in ("user_id", "item_id"):
        if column not in frame or frame[column].isna().any() or (frame[column].astype(str).str.strip() == "").any():
            raise ScoreFileError(f"{path}: every row needs a {column}")
        frame[column] = frame[column].astype(str)
    for column in frame.columns[frame.columns.astype(str).str.startswith("num_")]:
        given = frame[column].notna() & (frame[column] != "")
        numbers = pd.to_numeric(frame[column][given].astype(str), errors="coerce").astype(float)
        wrong = numbers.index[~np.isfinite(numbers)]
        if len(wrong):
            raise ScoreFileError(f"{path}: {column} of row {wrong[0] + 1} is no number: {frame[column][wrong[0]]!r}")
    return frame


def _whole(value: float) -> str:
    """Return a number as the landing writes ids of it: a whole one as such."""
    return str(int(value)) if value.is_integer() else str(value)


def as_given(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs with their values as the file has them: numbers of json lines, which `read_pairs` has as texts."""
    if path.suffix != ".jsonl":
        return frame
    with path.open(encoding="utf-8-sig") as lines:
        rows = pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
    return rows.assign(user_id=frame["user_id"], item_id=frame["item_id"])


def _object_of(line: str, number: int) -> dict[str, Any]:
    """Return a line's object with its numbers as they are written, as the landing has them. Raises `ValueError`."""
    try:
        row = json.loads(line, parse_int=str, parse_float=str)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no object")
    return row


def _score_published(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, int, int]:
    """Return the click probability of each pair (P,), and how many users and items are not published."""
    users, user_of, new_users = _user_vectors(frame, model, champion, config)
    items, item_of, known, titles, new_items = _item_vectors(frame, model, champion, config)
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
    return probabilities, new_users, new_items


def _user_vectors(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return user embeddings (U, N·E) float32, each pair's row in them (P,), and how many users are an empty history."""
    wanted = pd.Index(frame["user_id"].unique())
    table = _published("user_embeddings", "user_id", wanted, champion, config)
    device = pick_device(config.encoder.device)
    empty = user_embeddings(
        model, {}, np.zeros(1, np.int64), np.zeros((0, model.deep.width), "<f2"), batch_size=1, device=device
    )
    vectors = np.concatenate([_vectors(table, empty.shape[1]), empty])
    row = pd.Index(table["user_id"].to_pandas()).get_indexer(frame["user_id"])  # -1 is the empty history, the last row
    return vectors, row % len(vectors), int(len(wanted) - table.num_rows)


def _item_vectors(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, np.ndarray, ItemColumns, dict[str, str], int]:
    """Return item embeddings (I, E) float32, each pair's row in them (P,), columns and titles, how many are not published."""
    wanted = pd.Index(frame["item_id"].unique())
    table = _published("item_embeddings", "item_id", wanted, champion, config)
    known = {row["item_id"]: columns_of(row) for row in table.select(["item_id", "cat", "num"]).to_pylist()}
    absent = sorted(set(wanted) - set(known))
    titles, described = describe_items(frame, absent, champion.day, config)
    index = index_of_texts(titles.values(), model, champion.day, config)
    device = pick_device(config.encoder.device)
    extra = item_embeddings(model, title_rows(index, titles, absent), index.vectors, batch_size=256, device=device)
    vectors = np.concatenate([_vectors(table, model.embedding_width), extra])
    row = pd.Index([*table["item_id"].to_pylist(), *absent]).get_indexer(frame["item_id"])
    published = newest_items(sorted(known), champion.day, config)
    titles |= dict(zip(published["item_id"].to_pylist(), published["title"].to_pylist(), strict=True))
    return vectors, row, known | described, titles, len(absent)


def _published(name: str, id_column: str, wanted: pd.Index, champion: ModelVersion, config: Config) -> pa.Table:
    return read_table(
        config.tables_dir,
        name,
        partitions=f"model_version = {champion.version}",
        filters=pc.field(id_column).isin(pa.array(wanted, pa.string())),
    )


def _vectors(table: pa.Table, width: int) -> np.ndarray:
    return np.frombuffer(b"".join(table["embedding"].to_pylist()), "<f4").reshape(table.num_rows, width)


def _write_jsonl(frame: pd.DataFrame, out: Path) -> None:
    frame.to_json(out, orient="records", lines=True, force_ascii=False, double_precision=15)


def _write_csv(frame: pd.DataFrame, out: Path) -> None:
    frame.to_csv(out, index=False)


def _write_parquet(frame: pd.DataFrame, out: Path) -> None:
    frame.to_parquet(out, index=False)


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
