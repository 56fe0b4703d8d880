"""A log of the landing contract in memory: impressions with point-in-time histories, without Spark and tables.

For benchmarks that train a model many times over. It gives the rows of any days as the stages would build them: histories by
their own step; the newest item row with `updated_at` ≤ `shown_at`, else the earliest, of those that landed by its day. Unlike the
stages it takes every calendar day for run, also one without rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bahe_tasks.config import EncoderConfig, LandingConfig, SequencesConfig
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.training_rows import Histories, ImpressionRows, texts_read
from bahe_tasks.key_sums import DAY_US
from bahe_tasks.outcome_values import outcome_values
from benchmarks.kit.histories_in_memory import histories_of
from benchmarks.kit.label_times import LabelTimes, day_of, label_times_of
from benchmarks.kit.landed_log import TIMES, landed_frame
from benchmarks.kit.point_in_time_sums import point_in_time_sums

NumbersAsOf = Literal["impression", "day_start", "published"]
"""As `numbers.as_of` of a configuration; `published`: what a home with `impression` publishes the evening before."""


@dataclass(frozen=True)
class InMemoryLog:
    """All impressions in training order, and the distinct texts their rows point to."""

    rows: ImpressionRows
    texts: list[str]
    numbers_as_of: NumbersAsOf = "impression"
    """As of when the numbers of an impression are."""
    label_times: LabelTimes | None = None
    """None: every label is known when shown."""

    @property
    def known_at(self) -> np.ndarray:
        """From when on a label counts, (R,) int64."""
        return self.rows.shown_at if self.label_times is None else self.label_times.known_at

    @property
    def train_days(self) -> np.ndarray:
        """The day whose run trains on each row, (R,) datetime64[D]."""
        return day_of(self.rows.shown_at) if self.label_times is None else self.label_times.train_days

    def part(self, part: slice) -> InMemoryLog:
        """Return consecutive impressions."""
        times = None if self.label_times is None else self.label_times.part(part)
        return replace(self, rows=part_of(self.rows, part), label_times=times)

    @property
    def counted_at(self) -> np.ndarray:
        """What numbers of an impression count are rows of strictly less, (R,) int64: when it was shown, or the start of its day."""
        shown = self.rows.shown_at
        return shown if self.numbers_as_of == "impression" else shown - shown % DAY_US

    def encode(self, checkpoint_dir: Path, encoder: EncoderConfig) -> np.ndarray:
        """Return the behavior embeddings of the texts, (M, H) float16."""
        return encode_texts(self.texts, checkpoint_dir=checkpoint_dir, encoder=encoder)

    def encode_read(self, rows: Sequence[ImpressionRows], checkpoint_dir: Path, encoder: EncoderConfig) -> np.ndarray:
        """Return the embeddings of the texts that `rows` read, (M, H) float16; those of the others are zero."""
        read = texts_read(rows)
        found = encode_texts([self.texts[n] for n in read], checkpoint_dir=checkpoint_dir, encoder=encoder)
        embeddings = np.zeros((len(self.texts), found.shape[1]), np.float16)
        embeddings[read] = found
        return embeddings

    def between(self, first: date, last: date) -> ImpressionRows:
        """Return the rows of the days from `first` to `last`."""
        low, high = np.searchsorted(self.rows.shown_at, [_start_us(first), _start_us(last + timedelta(days=1))])
        return part_of(self.rows, slice(low, high))

    def next_day(self, day: date) -> date:
        """Return the first day after `day` that has rows; the day after it if none has."""
        later = self.rows.shown_at[np.searchsorted(self.rows.shown_at, _start_us(day + timedelta(days=1))) :]
        return day_of(later[0]).item() if len(later) else day + timedelta(days=1)

    def days(self, first: date, last: date) -> list[tuple[date, ImpressionRows]]:
        """Return the rows of each day from `first` to `last` that has any."""
        found = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            rows = self.between(day, day)
            if len(rows):
                found.append((day, rows))
        return found


def part_of(rows: ImpressionRows, part: slice | np.ndarray) -> ImpressionRows:
    """Return some of the impressions; the arrays of behaviors stay shared."""

    def of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: column[part] for name, column in columns.items()}

    return ImpressionRows(
        impression_ids=rows.impression_ids[part],
        user_ids=rows.user_ids[part],
        item_ids=rows.item_ids[part],
        shown_at=rows.shown_at[part],
        as_of=rows.as_of[part],
        labels=rows.labels[part],
        title_rows=rows.title_rows[part],
        histories={
            name: Histories(h.behavior_rows, h.occurred_at, h.starts[part], h.ends[part])
            for name, h in rows.histories.items()
        },
        cat=of(rows.cat),
        num=of(rows.num),
        extra_labels=of(rows.extra_labels),
        sums=None if rows.sums is None else rows.sums[part],
        outcome_values=None if rows.outcome_values is None else rows.outcome_values[part],
    )


def read_log(
    landing: Path,
    *,
    last: date | None = None,
    numbers_as_of: NumbersAsOf = "impression",
    landing_settings: LandingConfig | None = None,
    sequences: SequencesConfig | None = None,
) -> InMemoryLog:
    """Read a landing folder, every day or those up to `last`; settings are the defaults unless given.

    Raises `ValueError` where it has no good impression.
    """
    sequences = sequences or SequencesConfig()
    settings = landing_settings or LandingConfig()
    impressions, events, items = (
        landed_frame(landing, source, late_days=settings.late_days, last=last) for source in TIMES
    )
    if not len(impressions):
        raise ValueError(f"{landing} has no impressions (impressions/dt=YYYY-MM-DD/*.jsonl, *.csv or *.parquet)")
    impressions = impressions.sort_values(["shown_at", "impression_id"]).reset_index(drop=True)
    times = label_times_of(impressions, settings)
    known = _items_of(impressions, items)
    texts = sorted({*events["text"], *known["title"].dropna()})
    row_of = pd.Index(texts)
    shown = impressions["shown_at"].to_numpy(np.int64)
    cat, num, extra_labels = (_columns(prefix, impressions, known) for prefix in ("cat_", "num_", "label_"))
    cat = {name: np.array([None if pd.isna(v) else v for v in column], object) for name, column in cat.items()}
    return InMemoryLog(
        texts=texts,
        numbers_as_of=numbers_as_of,
        label_times=times,
        rows=ImpressionRows(
            impression_ids=impressions["impression_id"].to_numpy(object),
            user_ids=impressions["user_id"].to_numpy(object),
            item_ids=impressions["item_id"].to_numpy(object),
            shown_at=shown,
            as_of=shown - shown % DAY_US if sequences.history_as_of == "day_start" else shown,
            labels=impressions["label"].to_numpy(np.float32),
            title_rows=row_of.get_indexer(known["title"]).astype(np.int64),
            histories=histories_of(events, impressions, row_of, sequences),
            cat=cat,
            num={name: column.astype(np.float64) for name, column in num.items()},
            extra_labels={name: column.astype(np.float32) for name, column in extra_labels.items()},
            sums=point_in_time_sums(
                impressions,
                known["title"],
                events,
                cat,
                label_times=times,
                stop_at_day_start=numbers_as_of == "day_start",
                as_published=numbers_as_of == "published",
            ),
            outcome_values=outcomes_of(impressions, events, label_times=times),
        ),
    )


def outcomes_of(
    impressions: pd.DataFrame, events: pd.DataFrame, *, label_times: LabelTimes | None = None
) -> np.ndarray:
    """Return the outcome value of each impression, (R,) float64, NaN = none: of what landed the same day, and of no late impression."""
    found = np.full(len(impressions), np.nan)
    of_items = events[events["item_id"].notna() & (events["occurred_at"] >= events["landed_from"])]
    names = pd.concat([impressions[["user_id", "item_id"]], of_items[["user_id", "item_id"]]])
    pairs = names.groupby(["user_id", "item_id"]).ngroup().to_numpy()
    shown, happened = impressions["shown_at"].to_numpy(np.int64), of_items["occurred_at"].to_numpy(np.int64)
    values = of_items["value"].to_numpy(np.float64)
    of_shown, of_events = np.split(pairs, [len(shown)])
    for day in np.unique(shown // DAY_US):
        rows, past, start = shown // DAY_US == day, happened // DAY_US == day, day * DAY_US
        found[rows] = outcome_values(
            of_shown[rows], shown[rows] - start, of_events[past], happened[past] - start, values[past]
        )
    return found if label_times is None else np.where(label_times.is_late, np.nan, found)


def _columns(prefix: str, impressions: pd.DataFrame, known: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns of a prefix by name, (R,) each: an impression's own value, else that of its item."""
    names = [name for name in [*known, *impressions] if name.startswith(prefix) and name != "label_known_at"]
    found = {}
    for name in dict.fromkeys(names):
        of = [frame[name] for frame in (impressions, known) if name in frame]
        found[name.removeprefix(prefix)] = of[0].where(of[0].notna(), of[-1]).to_numpy()
    return found


def _start_us(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_US


def _items_of(impressions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Return the item row of each impression: of those that landed on its day or before the newest updated by then, else the
    earliest, of which title and `cat_*` count, never `num_*`."""
    items = items.sort_values(["updated_at", "landed_from"], kind="stable").assign(found=True)
    parts = []
    for landed_from, of_day in impressions.groupby("landed_from"):
        known = items[items["landed_from"] <= landed_from].drop(columns=["landed_from"])
        left = of_day[["item_id", "shown_at"]].rename(columns={"shown_at": "updated_at"})
        newest = pd.merge_asof(left, known, on="updated_at", by="item_id").set_index(of_day.index)
        earliest = (
            known.drop_duplicates("item_id").set_index("item_id").reindex(of_day["item_id"]).set_index(of_day.index)
        )
        for name in newest:
            if name == "title" or str(name).startswith("cat_"):
                newest[name] = newest[name].mask(newest["found"].isna(), earliest[name])
        parts.append(newest)
    return pd.concat(parts).sort_index().drop(columns=["found"])
