"""items: landed rows → typed rows and refused rows."""

from __future__ import annotations

import pyarrow as pa

from spark_jobs.landed.canonical_texts import canonical_texts
from spark_jobs.landed.judge import Judged, absent, any_of, in_maps, judged, time_problems, times, unreadable
from spark_jobs.landed.judge_events import is_empty
from spark_jobs.landed.parse_values import identifiers_of
from spark_jobs.landed.rows import LandedRows

ITEM_CONTENT = ("dt", "item_id", "updated_at", "title", "cat", "num")
"""Two item rows equal in these are the same row."""

_KNOWN = ("item_id", "title", "updated_at")


def judge_items(rows: LandedRows, *, late_days: int) -> Judged:
    """Return good rows with ITEM_CONTENT."""
    updated_at, title = rows.instant("updated_at"), canonical_texts(rows.text("title"))
    num = numbers(rows, "num_")
    typed = {
        "item_id": identifiers_of(rows.text("item_id")),
        "updated_at": times(updated_at),
        "title": title,
        "cat": categories(rows),
        "num": number_maps(num, len(rows)),
    }
    reasons = [
        ("missing_id", absent(typed["item_id"])),
        *time_problems(updated_at, rows.piece.dt, late_days=late_days),
        ("unreadable_number", any_of([unreadable(rows, name, values) for name, values in num.items()], len(rows))),
        ("empty_text", is_empty(title)),
    ]
    return judged(rows, typed, reasons, known=_KNOWN, prefixes=("cat_", "num_"))


def categories(rows: LandedRows) -> pa.Array:
    """Return the map of the `cat_NAME` fields of each row."""
    texts = {name.removeprefix("cat_"): rows.text(name) for name in rows.prefixed("cat_")}
    return in_maps(texts, {name: ~absent(of) for name, of in texts.items()}, pa.string(), len(rows))


def numbers(rows: LandedRows, prefix: str) -> dict[str, pa.Array]:
    """Return the fields `prefix`NAME as doubles, by their whole names; null where one is absent or cannot be read."""
    return {name: rows.number(name) for name in rows.prefixed(prefix)}


def number_maps(num: dict[str, pa.Array], count: int) -> pa.Array:
    """Return the map of the `num_NAME` numbers of each row."""
    named = {name.removeprefix("num_"): values for name, values in num.items()}
    return in_maps(named, {name: ~absent(values) for name, values in named.items()}, pa.float64(), count)
