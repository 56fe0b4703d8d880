"""The pandas frames the gates ask their expectations of, made from tables, counts and metrics.

Derived columns only: nothing here decides. Frames of one row hold figures of the day; their column names are those of
the expectations in gate_suites.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

INPUT_COLUMNS = {
    "behavior_events": ("user_id", "feature", "occurred_at", "behavior_key", "text"),
    "items": ("item_id", "updated_at", "title_key"),
    "impressions": ("impression_id", "user_id", "item_id", "shown_at", "label", "label_date", "sequence_ends"),
}
"""What the frames of a day's tables are made of: Great Expectations copies and hashes each column, asked for or not."""


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


def input_frames(
    *,
    behavior_events: pa.Table,
    items: pa.Table,
    impressions: pa.Table,
    counts: DayCounts,
    history: Mapping[str, Sequence[int]],
) -> dict[str, pd.DataFrame]:
    """Return the day's frames: the three tables' rows of the day and the one-row `day_counts`.

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
        "behavior_events": _frame("behavior_events", behavior_events),
        "items": _frame("items", items),
        "impressions": _frame("impressions", impressions).assign(
            smallest_sequence_end=_smallest_ends(impressions["sequence_ends"])
        ),
    }


def embedding_frames(embeddings: pa.Table, *, missing_keys: int, needed_keys: int) -> dict[str, pd.DataFrame]:
    """Return the frames of stored embeddings (`behavior_key`, `embedding`: H little-endian float16) and their coverage.

    `embeddings` are those the gate is about, `missing_keys` of the `needed_keys` of the day have no embedding.
    """
    blobs = _python(embeddings, "embedding")
    vectors = [np.frombuffer(blob, dtype="<f2").astype(np.float32) for blob in blobs]
    frame = pd.DataFrame(
        {
            "behavior_key": pd.Series(_python(embeddings, "behavior_key"), dtype=object),
            "dimension": pd.Series([len(vector) for vector in vectors], dtype=np.int64),
            "finite": pd.Series([bool(np.isfinite(vector).all()) for vector in vectors], dtype=bool),
            "norm": pd.Series([float(np.linalg.norm(vector)) for vector in vectors], dtype=np.float64),
        }
    )
    coverage = pd.DataFrame([{"needed_keys": needed_keys, "missing_keys": missing_keys}])
    return {"behavior_embeddings": frame, "embedding_coverage": coverage}


def _frame(name: str, table: pa.Table) -> pd.DataFrame:
    columns = [column for column in INPUT_COLUMNS[name] if column != "sequence_ends"]
    return table.select(columns).to_pandas(date_as_object=False)


def _smallest_ends(ends: pa.ChunkedArray) -> np.ndarray:
    """Return the smallest value of each of R maps of whole numbers, (R,) float64; NaN for an empty or missing map.

    A null among the values counts as -1: it is as wrong.
    """
    maps = ends.combine_chunks()
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


def _python(table: pa.Table, column: str) -> list:
    return table.column(column).to_pylist()
