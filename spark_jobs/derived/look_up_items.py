"""What was known of an impression's item when it was shown.

The newest item row updated at or before `shown_at` counts. An item first described later still has its title and
categories (they name the thing), but never its numbers, which could tell the future.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.arrow_types import arrow_schema, arrow_type
from spark_jobs.arrow_columns import day_numbers, micros

VERSION_COLUMNS = ("dt", "item_id", "updated_at", "title_key", "title", "cat", "num")
VERSIONS = pa.schema([arrow_schema("items").field(name) for name in VERSION_COLUMNS])
Entries = list[tuple[str, Any]]


def look_up_items(impressions: pa.Table, items: pa.Table) -> pa.Table:
    """Return `impressions` with title_key and title, and with cat and num filled up from the item; its own values win.

    `items`: VERSIONS that may be read, of other items too. title_key and title are null for an unknown item. Of rows
    updated at the same time the one of the greater dt counts.
    """
    items = items.filter(pc.field("item_id").isin(pc.unique(impressions["item_id"])))
    versions: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for item, *of_row in zip(
        items["item_id"].to_pylist(),
        micros(items["updated_at"]).tolist(),
        day_numbers(items["dt"]).tolist(),
        items["title_key"].to_pylist(),
        items["title"].to_pylist(),
        map(sorted, items["cat"].to_pylist()),
        map(sorted, items["num"].to_pylist()),
        strict=True,
    ):
        versions[item].append(tuple(of_row))
    for of_item in versions.values():
        of_item.sort()
    found: dict[str, list[Any]] = {name: [] for name in ("title_key", "title", "cat", "num")}
    for item, shown_us, cat, num in zip(
        impressions["item_id"].to_pylist(),
        micros(impressions["shown_at"]).tolist(),
        impressions["cat"].to_pylist(),
        impressions["num"].to_pylist(),
        strict=True,
    ):
        of_item = versions.get(item, [])
        known = bisect_right(of_item, shown_us, key=lambda version: version[0])
        newest = of_item[known - 1] if known else None
        version = newest or (of_item[0] if of_item else None)
        found["title_key"].append(version[2] if version else None)
        found["title"].append(version[3] if version else None)
        found["cat"].append(_filled_up(cat, version[4] if version else []))
        found["num"].append(_filled_up(num, newest[5] if newest else []))
    kinds = {"title_key": "string", "title": "string", "cat": "map<string,string>", "num": "map<string,double>"}
    for name, values in found.items():
        column = pa.array(values, arrow_type(kinds[name]))
        place = impressions.schema.get_field_index(name)
        impressions = (
            impressions.append_column(name, column) if place < 0 else impressions.set_column(place, name, column)
        )
    return impressions


def _filled_up(own: Entries, entries: Entries) -> Entries:
    """Return the map `own` with the entries whose key it lacks."""
    names = {name for name, _ in own}
    return own + [entry for entry in entries if entry[0] not in names]
