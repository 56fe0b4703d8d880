"""What the pairs of a day tell, and how long their users and items were idle."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
from handmade_landed_rows import landed_rows, shown

from benchmarks.as_published import segments
from benchmarks.kit.next_day import STRANGER

DAY = date(2024, 3, 5)
EVE = DAY - timedelta(days=1)


def test_pairs_tell_of_an_item_what_no_row_had_told_before():
    landed = landed_rows(
        impressions=[
            (DAY, 9, shown(1, "u", "new", cat_page="a")),
            (DAY, 2, shown(0, "u", "new", cat_page="b", num_price=7.0)),
            (DAY, 5, shown(2, "v", "old", cat_page="c")),
            (DAY, -3, shown(3, "v", "old", cat_page="late")),
            (EVE, 5, shown(4, "v", "old", cat_page="d")),
        ],
        items=[
            (EVE, 1, {"item_id": "old", "title": "as of the eve", "cat_kind": "x", "num_price": 1.0}),
            (DAY, 1, {"item_id": "old", "title": "as of the day", "cat_kind": "y", "num_price": 2.0}),
            (DAY, 4, {"item_id": "new", "title": "first", "cat_kind": "z", "num_price": 3.0}),
            (DAY, 6, {"item_id": "new", "title": "second", "cat_kind": "w", "num_price": 4.0}),
        ],
    )
    told, untold, known = landed.pairs_of(DAY), landed.pairs_of(DAY, told=False), landed.known_of(DAY)
    columns = ["impression_id", "title", "cat_page", "cat_kind", "num_price"]
    assert as_rows(told[columns]) == [
        ("m0", "first", "b", "z", 7.0),
        ("m1", "first", "a", "z", 3.0),
        ("m2", None, "c", None, None),
    ]
    assert as_rows(known[columns])[2] == ("m2", "as of the eve", "c", "x", 1.0)
    assert list(untold) == ["impression_id", "user_id", "item_id", "cat_page", "num_price"]
    assert as_rows(untold[["num_price"]]) == [(7.0,), (None,), (None,)]


def as_rows(frame):
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]


def test_idle_days_are_whole_days_without_anything_of_whatever_source():
    def before(days):
        return DAY - timedelta(days=days)

    landed = landed_rows(
        impressions=[
            (before(1), 5, shown(0, "eve", "i")),
            (before(9), 5, shown(1, "long", "i")),
            (DAY, 5, shown(2, "new", "j")),
        ],
        events=[(before(8), 5, {"user_id": "week", "item_id": None})],
        items=[(before(3), 5, {"item_id": "j"})],
    )
    users = landed.idle_days("user_id", pd.Series(["eve", "week", "long", "new"]), DAY)
    assert users.tolist() == [0, 7, 8, STRANGER]
    assert landed.idle_days("item_id", pd.Series(["i", "j", "k"]), DAY).tolist() == [0, 2, STRANGER]
    masks = dict(segments(users, publish_days=8))
    assert {name: mask.tolist().index(True) for name, mask in masks.items()} == {
        "active": 0, "idle_to_7": 1, "idle_over_7": 2, "not_published": 2, "stranger": 3,
    }  # fmt: skip
