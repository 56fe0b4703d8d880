"""The pandas frames the gates ask their expectations of, made from tables, counts and metrics.

Derived columns only: nothing here decides. Frames of one row hold figures of the day; their column names are those of
the expectations in gate_suites.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.arrow_types import arrow_schema

INPUT_COLUMNS = {
    "behavior_events": ("user_id", "feature", "occurred_at", "behavior_key", "text"),
    "items": ("item_id", "updated_at", "title_key"),
    "impressions": ("impression_id", "user_id", "item_id", "shown_at", "label", "label_date", "sequence_ends"),
}
"""What is read of a day's tables."""

FRAMES_OF_FIGURES = ("day_counts", "embedding_coverage", "challenger")
"""Frames of one row, of which a gate's record shows the value itself; of others, how many rows fail."""
_TEXTS_ASKED_OF = ("behavior_key", "title_key", "impression_id")
_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class DayCounts:
    """Rows of one day, over all sources: landed = table + duplicate + quarantined rows, or something was lost."""

    landed_rows: int
    table_rows: int
    duplicate_rows: int
    quarantined_rows: int
    impressions_lost: int = 0
    """Landed impressions of a day none of whose impressions was fit for the table; else 0."""

    @property
    def unaccounted_rows(self) -> int:
        """Rows that landed and are nowhere, as a distance from zero."""
        return abs(self.landed_rows - self.table_rows - self.duplicate_rows - self.quarantined_rows)


@dataclass(frozen=True)
class ChallengerMetrics:
    """What the held-out rows of the last gate days say of a challenger.

    Differences are challenger minus reference. `auc_difference_high` is the upper end of the paired 95 % bootstrap
    interval; `calibration_low` and `_high` bound predicted / observed clicks at 99 %; `logloss_excess_low` is the lower
    end of the 95 % interval of logloss(model) - logloss(base rate). What was not computed is None.
    """

    rows: int
    users: int
    positives: int
    has_reference: bool
    non_finite_scores: int
    score_std: float | None = None
    auc: float | None = None
    reference_auc: float | None = None
    auc_difference: float | None = None
    auc_difference_low: float | None = None
    auc_difference_high: float | None = None
    calibration: float | None = None
    calibration_low: float | None = None
    calibration_high: float | None = None
    logloss: float | None = None
    base_rate_logloss: float | None = None
    logloss_excess_low: float | None = None

    def frame(self) -> pd.DataFrame:
        """Return the figures as one row."""
        figures = {k: np.nan if v is None else v for k, v in dataclasses.asdict(self).items()}
        return pd.DataFrame([figures])


def asked_of(name: str, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return of a day's rows no more than the gate asks of them: Great Expectations copies and hashes all it is given.

    Times, whole numbers, keys and impression ids stay as they are. Of `sequence_ends` the smallest value is kept, as
    `smallest_sequence_end`, and of all else whether it is there: 1.0, or NaN for null.
    """
    columns = INPUT_COLUMNS[name]
    names = ["smallest_sequence_end" if column == "sequence_ends" else column for column in columns]
    none = pa.RecordBatch.from_pylist([], schema=pa.schema([arrow_schema(name).field(column) for column in columns]))
    return pa.concat_tables(
        pa.table([_asked_of_column(batch[column], column) for column in columns], names)
        for batch in chain(batches, [none])
    )


def input_frames(
    *,
    behavior_events: pa.Table,
    items: pa.Table,
    impressions: pa.Table,
    counts: DayCounts,
    history: Mapping[str, Sequence[int]],
) -> dict[str, pd.DataFrame]:
    """Return the day's frames: what is `asked_of` the three tables' rows of the day, their distinct keys, the one-row `day_counts`.

    `history` holds, per source, the table rows of the earlier days of the gate window; days without rows do not count.
    """
    today = {"behavior_events": behavior_events.num_rows, "impressions": impressions.num_rows}
    figures: dict[str, float] = {
        **dataclasses.asdict(counts),
        "unaccounted_rows": counts.unaccounted_rows,
        "quarantined_share": counts.quarantined_rows / max(1, counts.landed_rows),
    }
    for source, rows in today.items():
        figures[f"{source}_share_of_median"] = _share_of_median(rows, history.get(source, ()))
    return {
        "day_counts": pd.DataFrame([figures]),
        "behavior_events": _frame(behavior_events),
        "behavior_keys": _distinct(behavior_events, "behavior_key"),
        "items": _frame(items.drop_columns("title_key")),
        "title_keys": _distinct(items, "title_key"),
        "impressions": _frame(impressions).assign(repeated_impression_id=_repeated(impressions["impression_id"])),
    }


def embedding_frames(embeddings: pa.Table, *, missing_keys: int, needed_keys: int) -> dict[str, pd.DataFrame]:
    """Return the frames of stored embeddings (`behavior_key`, `embedding`: H little-endian float16) and their coverage.

    `embeddings` are those the gate is about, `missing_keys` of the `needed_keys` of the day have no embedding.
    """
    vectors = embeddings.column("embedding")
    starts = range(0, max(len(vectors), 1), _ROWS_AT_ONCE)
    checked = pd.concat([_checked(vectors.slice(start, _ROWS_AT_ONCE)) for start in starts], ignore_index=True)
    keys = pd.DataFrame({"behavior_key": embeddings.column("behavior_key").to_pandas().astype(object)})
    coverage = pd.DataFrame([{"needed_keys": needed_keys, "missing_keys": missing_keys}])
    return {"behavior_embeddings": pd.concat([keys, checked], axis=1), "embedding_coverage": coverage}


def _checked(blobs: pa.ChunkedArray) -> pd.DataFrame:
    """Return of each vector of little-endian float16 its dimension, whether all of it is finite, and its norm.

    Null is a vector without numbers. Half a number counts half in the dimension, which is none that a model has.
    """
    blobs = pc.fill_null(blobs, b"")
    sizes = pc.binary_length(blobs).to_numpy()
    finite, norms = np.zeros(len(sizes), bool), np.zeros(len(sizes))
    for size in np.unique(sizes):
        of_size = sizes == size
        stored = np.frombuffer(b"".join(blobs.filter(pa.array(of_size)).to_pylist()), "u1").reshape(of_size.sum(), size)
        vectors = np.ascontiguousarray(stored[:, : size - size % 2]).view("<f2").astype(np.float32)
        finite[of_size], norms[of_size] = np.isfinite(vectors).all(1), np.linalg.norm(vectors, axis=1)
    return pd.DataFrame({"dimension": sizes / 2, "finite": finite, "norm": norms})


def _asked_of_column(values: pa.Array, column: str) -> pa.Array:
    if column in _TEXTS_ASKED_OF:
        return values.cast(pa.large_string())  # a day's keys may be over 2 GB
    if pa.types.is_map(values.type):
        return pa.array(_smallest_ends(values))
    return values if pa.types.is_timestamp(values.type) or pa.types.is_integer(values.type) else _is_there(values)


def _is_there(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.if_else(values.is_valid(), pa.scalar(1, pa.float32()), pa.scalar(np.nan, pa.float32()))


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows as pandas, of texts whether they are there."""
    columns = zip(rows.column_names, rows.columns, strict=True)
    return pd.DataFrame(
        {name: (_is_there(values) if name in _TEXTS_ASKED_OF else values).to_pandas() for name, values in columns}
    )


def _distinct(rows: pa.Table, name: str) -> pd.DataFrame:
    return pd.DataFrame({name: pc.unique(rows[name]).drop_null().to_pandas()}, dtype=object)


def _repeated(ids: pa.ChunkedArray) -> pd.Series:
    """Return the ids that more than one of R rows has, where they stand, and null elsewhere."""
    rows_of = pc.value_counts(ids)
    repeated = rows_of.field("values").filter(pc.greater(rows_of.field("counts"), 1)).drop_null()
    return pc.if_else(pc.is_in(ids, value_set=repeated), ids, None).dictionary_encode().to_pandas()


def _smallest_ends(maps: pa.MapArray) -> np.ndarray:
    """Return the smallest value of each of R maps of whole numbers, (R,) float64; NaN for an empty or missing map.

    A null among the values counts as -1: it is as wrong.
    """
    found = np.full(len(maps), np.nan)
    offsets = np.asarray(maps.offsets)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        values = np.asarray(pc.fill_null(maps.items[: offsets[-1]], -1))
        found[filled] = np.minimum.reduceat(values, offsets[filled])
    return found


def _share_of_median(rows: int, earlier: Sequence[int]) -> float:
    """Return rows / median of the earlier days that have rows; NaN when there is nothing to compare."""
    known = [count for count in earlier if count > 0]
    return rows / median(known) if rows and known else float("nan")
