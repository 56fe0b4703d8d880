"""Titles and columns of the items in a file of pairs: what the file says of them, over what the table items knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from bahe_tasks.behavior_key import canonical_text
from bahe_tasks.config import Config
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.stages.histories_as_of import newest_items
from bahe_tasks.stages.pair_file import ScoreFileError, as_landed

ItemColumns = dict[str, dict[str, dict[str, Any]]]
"""item_id → "cat" and "num" → column without its prefix → value."""


def describe_items(items: Sequence[str], day: date, config: Config) -> tuple[dict[str, str], ItemColumns]:
    """Return the title of each item that the table items has, and its columns, as known at the end of `day`."""
    rows = newest_items(items, day, config).to_pylist()
    return {row["item_id"]: row["title"] for row in rows}, {row["item_id"]: columns_of(row) for row in rows}


def given_titles(frame: pd.DataFrame) -> dict[str, str]:
    """Return the canonical titles that a file of pairs gives, by item. Raises `ScoreFileError` for an item with two."""
    if "title" not in frame:
        return {}
    given = frame[["item_id", "title"]].dropna().map(as_landed).drop_duplicates()
    found: dict[str, str] = {}
    for item, title in given.itertuples(index=False):
        canonical = canonical_text(title)
        if canonical and found.setdefault(item, canonical) != canonical:
            raise ScoreFileError(
                f"item {item!r} has two titles, {found[item]!r} and {canonical!r}: score them in two files, "
                "or give each an item_id of its own"
            )
    return found


def unread_columns(frame: pd.DataFrame, spec: ModelSpec) -> list[str]:
    """Return the columns of a file of pairs that say cat_ or num_, or a known name in other letters, and that the log of a model has not.

    Where the configuration names the model's categorical columns, sums are counted of the log's others too, so none is.
    """
    read = {"user_id", "item_id", "title"}
    read |= {f"cat_{name}" for name in spec.cat_columns} | {f"num_{name}" for name in spec.num_columns}
    letters = {name.casefold() for name in read}
    kinds = ("num_",) if spec.model.cat_columns else ("cat_", "num_")
    names = [str(name) for name in frame if str(name) not in read]
    return [name for name in names if name.startswith(kinds) or name.casefold() in letters]


def columns_of(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the columns of a row of items or item_embeddings, whose maps are lists of pairs."""
    return {"cat": dict(row["cat"] or []), "num": dict(row["num"] or [])}


def pair_columns(frame: pd.DataFrame, known: ItemColumns) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return categorical (P,) object and numeric (P,) float64 columns of the pairs, None and NaN = absent."""
    return (
        _columns(frame, "cat", known, dtype=object, absent=None),
        _columns(frame, "num", known, dtype=np.float64, absent=np.nan),
    )


def _columns(frame: pd.DataFrame, kind: str, known: ItemColumns, *, dtype: type, absent: Any) -> dict[str, np.ndarray]:
    """Return the file's columns of a kind over the items' columns of the same name."""
    prefix = f"{kind}_"
    given = {str(name).removeprefix(prefix): frame[name] for name in frame if str(name).startswith(prefix)}
    of_items = [known.get(item, {}).get(kind, {}) for item in frame["item_id"]]
    columns = {}
    for name in sorted({*given, *(key for maps in of_items for key in maps)}):
        column: np.ndarray = np.array([maps.get(name, absent) for maps in of_items], dtype=dtype)
        if name in given:
            present = (given[name].notna() & (given[name] != "")).to_numpy(dtype=bool)  # a landed "" is none either
            values = given[name][present]
            column[present] = values.map(as_landed) if dtype is object else values.astype(float)
        columns[name] = column
    return columns
