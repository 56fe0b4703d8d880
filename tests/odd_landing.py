"""Landed files of one day for tests of what becomes of odd rows: written, read and judged."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece

DAY = date(2024, 3, 10)
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
MAP = pa.map_(pa.string(), pa.string())
EVENT = {"user_id": "u", "feature": "f", "occurred_at": "2024-03-10", "text": "t"}


def judged(landing, source="behavior_events"):
    return [of for piece in pieces_of(str(landing.folder), source, [DAY]) for of in judge_piece(piece, late_days=3)]


def good_and_reasons(landing, source="behavior_events"):
    parts = judged(landing, source)
    refused = [row for of in parts for row in of.refused.to_pylist()]
    return [row for of in parts for row in of.good.to_pylist()], Counter(row["reason"] for row in refused), refused


def write_parquet(landing, columns, source="behavior_events"):
    count = len(next(iter(columns.values())))
    good = {"user_id": ["u"] * count, "feature": ["f"] * count, "occurred_at": [NOON] * count, "text": ["t"] * count}
    if source == "items":
        good = {"item_id": ["i"] * count, "title": ["t"] * count, "updated_at": [NOON] * count}
    landing.raw(source, DAY, "a.parquet", b"")
    pq.write_table(pa.table({**good, **columns}), landing.folder / source / f"dt={DAY}" / "a.parquet")
