"""Lectures: 73,421 marks, 1 to 5, that 2,972 students gave 1,128 lecturers, `lme4::InstEval`.

A click is a mark of 4 or more. The table has no times: marks come in one random order, a thousand a day from 2013-01-01 on, a
minute apart. Titles and behaviors say the department alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pandas as pd

from benchmarks.public_logs.rows import FIRST_DAY, Row, minute_of, records

MARKS_A_DAY = 1000
LIKED_FROM = 4


def rows(marks: pd.DataFrame) -> Iterator[Row]:
    """Columns s (student), d (lecturer), studage, lectage, service, dept, y (mark)."""
    landed: set[str] = set()
    for number, mark in enumerate(records(marks.sample(frac=1, random_state=0))):
        day = FIRST_DAY + timedelta(number // MARKS_A_DAY)
        at, value, text = minute_of(day, number % MARKS_A_DAY), int(mark.y), f"Department {mark.dept}"
        who = {"user_id": f"s{mark.s}", "item_id": f"d{mark.d}"}
        columns = {f"cat_{name}": str(getattr(mark, name)) for name in ("studage", "lectage", "service")}
        label = int(value >= LIKED_FROM)
        yield Row("impressions", day, {"impression_id": f"i{number}", **who, "shown_at": at, "label": label, **columns})
        feature = "liked" if label else "disliked"
        yield Row("behavior_events", day, {**who, "feature": feature, "occurred_at": at, "text": text, "value": value})
        if who["item_id"] not in landed:
            landed.add(who["item_id"])
            item = {
                "item_id": who["item_id"],
                "title": text,
                "updated_at": minute_of(day, 0),
                "cat_dept": str(mark.dept),
            }
            yield Row("items", day, item)
