"""behavior_events: landed rows → typed rows and refused rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.landed.canonical_texts import canonical_texts
from spark_jobs.landed.judge import Judged, absent, judged, time_problems, times, unreadable
from spark_jobs.landed.parse_values import identifiers_of
from spark_jobs.landed.rows import LandedRows

EVENT_CONTENT = ("dt", "user_id", "feature", "occurred_at", "text", "item_id", "value")
"""Two events equal in these are the same event; the text stands for its behavior_key."""

GREATEST_VALUE = 1e30
"""Size of a value beyond which it is no number: sums of squares of a log, and float32, hold what is not greater."""

_KNOWN = ("user_id", "feature", "occurred_at", "text", "item_id", "value")


def judge_events(rows: LandedRows, *, late_days: int) -> Judged:
    """Return good rows with EVENT_CONTENT."""
    occurred_at, text = rows.instant("occurred_at"), canonical_texts(rows.text("text"))
    value = rows.number("value")
    value = pc.if_else(pc.less_equal(pc.abs(value), GREATEST_VALUE), value, pa.scalar(None, pa.float64()))
    typed = {
        "user_id": identifiers_of(rows.text("user_id")),
        "feature": identifiers_of(rows.text("feature")),
        "occurred_at": times(occurred_at),
        "text": text,
        "item_id": identifiers_of(rows.text("item_id")),
        "value": value,
    }
    reasons = [
        ("missing_id", absent(typed["user_id"])),
        ("missing_feature", absent(typed["feature"])),
        *time_problems(occurred_at, rows.piece.dt, late_days=late_days),
        ("unreadable_number", unreadable(rows, "value", value)),
        ("empty_text", is_empty(text)),
    ]
    return judged(rows, typed, reasons, known=_KNOWN)


def is_empty(canonical: pa.Array) -> np.ndarray:
    """Return where nothing is left of a text, (R,) bool."""
    return np.asarray(pc.fill_null(pc.equal(canonical, ""), True))
