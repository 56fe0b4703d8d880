"""What versions in a registry make of impressions whose histories and numbers are as of the start of their day: what serving should give.

Read from the landing folder in memory (`in_memory_log`), without the tables, the published ones among them. So where a server's scores are others,
it is what was published, or how it is read, and not that a state is a day old. Embeddings of texts alone are the stored ones: encoded anew they
have other last bits, which `core.text_ids` takes for other texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.model_files import load_model
from bahe_tasks.core.training_rows import texts_read
from bahe_tasks.landing import landed_days
from bahe_tasks.stages.pair_texts import index_of_texts
from bahe_tasks.stages.score_rows import score_rows
from bahe_tasks.stores.model_registry import connect, local_model_folder
from benchmarks.kit.in_memory_log import part_of, read_log


def can_be_told(landing: Path, first: date, config: Config) -> bool:
    """Return whether a home whose first day is `first` has all that the landing folder has: rows of days before it are not all taken in."""
    impressions, events = (landed_days(landing, source)[:1] for source in ("impressions", "behavior_events"))
    return all(day >= first for day in impressions) and all(
        (first - day).days < config.sequences.history_days for day in events
    )


def day_old_scores(landing: Path, asked: pd.DataFrame, config: Config, *, last: date) -> np.ndarray:
    """Return the click probability of each row of `asked`, its impression_id by its model_version, (R,) float64.

    `asked` has the `title`, `cat_*` and `num_*` that a server knows of each, which stand in place of those as of the impression.
    `last`: the last day that has landed. All rows of the log count as those of days whose inputs passed.
    """
    log = read_log(
        landing,
        last=last,
        numbers_as_of="published" if config.numbers.as_of == "impression" else "day_start",
        landing_settings=config.landing,
        sequences=replace(config.sequences, history_as_of="day_start"),
    )
    place = pd.Index(log.rows.impression_ids).get_indexer(pd.Index(asked["impression_id"]))
    rows = replace(
        part_of(log.rows, place),
        title_rows=pd.Index(log.texts).get_indexer(pd.Index(asked["title"])).astype(np.int64),
        cat={
            name: column.astype(object).where(column.notna(), None).to_numpy()
            for name, column in _columns("cat_", asked)
        },
        num={name: column.to_numpy(np.float64) for name, column in _columns("num_", asked)},
    )
    registry, embeddings = connect(config), None
    found = np.full(len(asked), np.nan)
    for version in asked["model_version"].unique():
        of_version = np.flatnonzero(asked["model_version"] == version)
        model, _ = load_model(local_model_folder(registry, int(version)))
        if embeddings is None:
            embeddings = _embeddings(log.texts, texts_read([rows]), model, last, config)
        found[of_version] = score_rows(model, part_of(rows, of_version), embeddings, config)
    return found


def _embeddings(texts: list[str], read: np.ndarray, model: BaheCtrModel, day: date, config: Config) -> np.ndarray:
    """Return the embeddings of the texts, (M, H) float16, zero for those that are not read."""
    index = index_of_texts((texts[n] for n in read), model, day, config)
    embeddings = np.zeros((len(texts), index.vectors.shape[1]), "<f2")
    embeddings[read] = index.vectors[
        index.rows_of(pa.chunked_array([[behavior_key(texts[n]) for n in read]], pa.string()))
    ]
    return embeddings


def _columns(prefix: str, rows: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    for name in rows:
        if str(name).startswith(prefix):
            yield str(name).removeprefix(prefix), rows[name]
