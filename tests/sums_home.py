"""A home folder whose landing is written from the rows of a handmade log, and what its sums must be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import numpy as np
import pandas as pd
from handmade_rows import DAY_US, Event, Impression, day_of
from handmade_sums_log import ITEM_COLOURS
from predicted_days import accept, refuse
from slow_running_sums import slow_sums

from bahe_tasks.config import Config
from bahe_tasks.stages.dedup_behaviors import dedup_behaviors
from bahe_tasks.stages.pair_sums import pair_sums
from bahe_tasks.stages.state_as_of import StateAsOf, active_state
from bahe_tasks.stores.delta_tables import read_table


@dataclass
class Home:
    """A home folder whose landing is written from rows."""

    config: Config

    def land(self, impressions: list[Impression], events: list[Event]) -> None:
        titles = {i.item: i.title for i in impressions if i.title is not None}
        first = min([*(i.dt for i in impressions), *(e.dt for e in events)])
        items = [
            {
                "item_id": item,
                "title": title,
                "updated_at": instant(first * DAY_US - 1),
                "cat_colour": ITEM_COLOURS[int(item[1:])],
            }
            for item, title in sorted(titles.items())
        ]
        self._write("items", first, items)
        for dt in sorted({row.dt for row in [*impressions, *events]}):
            self._write("impressions", dt, [landed_impression(i) for i in impressions if i.dt == dt])
            self._write("behavior_events", dt, [landed_event(e) for e in events if e.dt == dt])

    def _write(self, source: str, dt: int, rows: list[dict]) -> None:
        if rows:
            folder = self.config.landing_dir / source / f"dt={day_of(dt)}"
            folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows]
            (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")

    def run(self, day: int, **changes) -> None:
        dedup_behaviors(day_of(day), self.config, **changes)
        accept(self.config, day_of(day))

    def sums(self) -> dict[str, list[float | None] | None]:
        rows = read_table(self.config.tables_dir, "impressions", columns=["impression_id", "sums"]).to_pylist()
        return {row["impression_id"]: row["sums"] for row in rows}

    def rows_of(self, table: str) -> list[str]:
        return sorted(map(str, read_table(self.config.tables_dir, table).to_pylist()))

    def refuse(self, day: int) -> None:
        refuse(self.config, day_of(day))


def instant(time_us: int) -> str:
    return (
        datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_us % 1_000_000:06}Z"
    )


def landed_impression(i: Impression) -> dict:
    known = None if i.known_us == i.shown_us else instant(i.known_us)
    colour = i.cat.get("colour")
    own = {"cat_place": i.cat.get("place"), "cat_colour": None if colour == ITEM_COLOURS[int(i.item[1:])] else colour}
    return own | {"impression_id": i.name, "user_id": i.user, "item_id": i.item, "shown_at": instant(i.shown_us), "label": i.label, "label_known_at": known}  # fmt: skip


def landed_event(e: Event) -> dict:
    return {"user_id": e.user, "item_id": e.item, "text": e.text, "feature": e.feature, "occurred_at": instant(e.occurred_us), "value": e.value}  # fmt: skip


def assert_sums(home: Home, expected: dict[str, list[float | None] | None]) -> None:
    found = home.sums()
    assert set(found) == set(expected)
    for name, sums in expected.items():
        if sums is None:
            assert found[name] is None, name
        else:
            assert found[name] is not None, name
            assert [x is None for x in found[name]] == [x is None for x in sums], name
            np.testing.assert_allclose(
                np.array(found[name], float), np.array(sums, float), rtol=1e-9, atol=1e-9, err_msg=name
            )


def assert_pairs_are_scored_with_the_state_at_the_end_of_the_last_day(home, days, impressions, events, **slow):
    """A pair reads what an impression shown at that very moment would read, whoever and whatever it is of."""
    end, random = days[-1] + 1, Random(5)
    titles = {i.item: i.title for i in impressions if i.title is not None} | {"new": "A new Moon"}
    pairs = [(user, item) for user in ("u0", "u1", "nobody") for item in ("i0", "i2", "i4", "new", "untitled")]
    cats = [
        {"colour": random.choice(["red", "blue", "new", None]), "place": random.choice(["top", None])} for _ in pairs
    ]
    asked = [
        Impression(f"{user}-{item}", end, user, item, titles.get(item), end * DAY_US, 0, end * DAY_US, cat)
        for (user, item), cat in zip(pairs, cats, strict=True)
    ]
    expected = slow_sums([*days, end], [*impressions, *asked], events, **slow)
    state = active_state(
        ["u0", "u1", "u2"], [f"i{n}" for n in range(9)], list(titles.values()), day_of(days[-1]), home.config
    )
    columns = {name: np.array([cat[name] for cat in cats], object) for name in ("colour", "place")}
    frame = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    found = pair_sums(frame, titles, columns, StateAsOf(state, day_of(days[-1])))
    rows = np.array([expected[i.name] for i in asked], dtype=float)
    np.testing.assert_allclose(found, rows, rtol=1e-9, atol=1e-6)
