"""impressions: landed rows → typed rows and refused rows."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from spark_jobs.arrow_columns import day_number
from spark_jobs.landed.judge import (
    Judged,
    absent,
    any_of,
    in_maps,
    judged,
    time_problems,
    times,
    unreadable,
    unreadable_time,
)
from spark_jobs.landed.judge_items import categories, number_maps, numbers
from spark_jobs.landed.parse_values import identifiers_of
from spark_jobs.landed.rows import LandedRows

IMPRESSION_CONTENT = ("user_id", "item_id", "shown_at", "label", "label_known_at", "labels", "cat", "num")
"""Two impressions of one impression_id must be equal in these, else they are a conflict."""

_KNOWN = ("impression_id", "user_id", "item_id", "shown_at", "label", "label_known_at")
_IDS = ("impression_id", "user_id", "item_id")
_FIRST_US, _END_US = (day_number(day) * DAY_US for day in (date.min, date(9999, 1, 1)))


def judge_impressions(rows: LandedRows, *, late_days: int) -> Judged:
    """Return good rows with dt, impression_id, IMPRESSION_CONTENT, source_file and raw: they may yet be a conflict."""
    shown_at, label_known_at = rows.instant("shown_at"), _within_years(rows.instant("label_known_at"))
    label, num = rows.label("label"), numbers(rows, "num_")
    labels = {name: rows.label(name) for name in rows.prefixed("label_") if name != "label_known_at"}
    typed = {
        **{name: identifiers_of(rows.text(name)) for name in _IDS},
        "shown_at": times(shown_at),
        "label": label,
        "label_known_at": times(label_known_at),
        "labels": _label_maps(labels, len(rows)),
        "cat": categories(rows),
        "num": number_maps(num, len(rows)),
        "source_file": pa.repeat(pa.scalar(rows.piece.file_name), len(rows)),
        "raw": pa.array(rows.raws(np.arange(len(rows))), pa.string()),
    }
    is_binary = np.asarray(pc.fill_null(pc.is_in(label, pa.array([0, 1], pa.int32())), False))
    bad_labels = [unreadable(rows, name, values) for name, values in labels.items()]
    reasons = [
        ("missing_id", any_of([absent(typed[name]) for name in _IDS], len(rows))),
        ("unreadable_time", unreadable_time(rows, "label_known_at", label_known_at)),
        *time_problems(shown_at, rows.piece.dt, late_days=late_days),
        ("bad_label", any_of([~is_binary, *bad_labels], len(rows))),
        ("unreadable_number", any_of([unreadable(rows, name, values) for name, values in num.items()], len(rows))),
    ]
    return judged(rows, typed, reasons, known=_KNOWN, prefixes=("label_", "cat_", "num_"))


def _within_years(micros: pa.Array) -> pa.Array:
    """Return times of the years 1 to 9998, null for others: an infinity, or milliseconds taken for seconds."""
    is_time = pc.and_(pc.greater_equal(micros, _FIRST_US), pc.less(micros, _END_US))
    return pc.if_else(is_time, micros, pa.scalar(None, pa.int64()))


def _label_maps(labels: dict[str, pa.Array], count: int) -> pa.Array:
    named = {name.removeprefix("label_"): values for name, values in labels.items()}
    return in_maps(named, {name: ~absent(values) for name, values in named.items()}, pa.int32(), count)
