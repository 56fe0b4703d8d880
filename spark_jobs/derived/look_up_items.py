"""What was known of an impression's item when it was shown.

The newest item row updated at or before `shown_at` counts. An item first described later still has its title and
categories (they name the thing), but never its numbers, which could tell the future.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import Column, day_numbers, entries, maps, micros, runs, whole
from spark_jobs.derived.steps import condensed

VERSION_COLUMNS = ("dt", "item_id", "updated_at", "title_key", "title", "cat", "num")
VERSIONS = pa.schema([arrow_schema("items").field(name) for name in VERSION_COLUMNS])
_ROWS_HELD = 200_000


def look_up_items(impressions: pa.Table, items: pa.Table) -> pa.Table:
    """Return `impressions` with title_key and title, and with cat and num filled up from the item; its own values win.

    `items`: VERSIONS that may be read, of other items too. title_key and title are null for an unknown item. Of rows
    updated at the same time the one of the greater dt counts.
    """
    shown = pc.unique(impressions["item_id"])
    items = in_order(items.filter(pc.field("item_id").isin(shown)))
    newest, any_known = _versions(impressions, items, shown)
    found: dict[str, pa.Array] = {name: whole(items[name]).take(any_known) for name in ("title_key", "title")}
    for name, place in (("cat", any_known), ("num", newest)):
        found[name] = _filled_up(whole(impressions[name]), whole(items[name]).take(place))
    for name, column in found.items():
        at = impressions.schema.get_field_index(name)
        impressions = impressions.append_column(name, column) if at < 0 else impressions.set_column(at, name, column)
    return impressions


def versions_read(parts: Iterable[pa.Table], impressions: pa.Table, *, rows_held: int = _ROWS_HELD) -> pa.Table:
    """Return those of VERSIONS in `parts` that impressions, of which item_id and shown_at count, may need.

    Of an item those updated after it was first shown, and the newest of the others: they are read once for every day of a log.
    """
    shown = impressions.group_by("item_id", use_threads=False).aggregate([("shown_at", "min")])
    names, first_us = whole(shown["item_id"]), np.append(micros(shown["shown_at_min"]), 0)

    def needed(items: pa.Table) -> pa.Table:
        item = np.asarray(pc.fill_null(pc.index_in(whole(items["item_id"]), names), -1), np.int64)
        updated, dt = micros(items["updated_at"]), day_numbers(items["dt"])
        is_later = (item >= 0) & (updated > first_us[item])
        others = np.flatnonzero((item >= 0) & ~is_later)
        others = others[np.lexsort((dt[others], updated[others], item[others]))]
        ends = np.append(runs(item[others])[1:], True)[: len(others)]
        newest = others[ends][np.cumsum(runs(item[others])) - 1]  # of the item of each
        is_newest = (updated[others] == updated[newest]) & (dt[others] == dt[newest])
        is_later[others[is_newest]] = True
        return items.filter(pa.array(is_later))

    return needed(condensed(chain([VERSIONS.empty_table()], parts), needed, rows_held=rows_held))


def in_order(items: pa.Table) -> pa.Table:
    """Return VERSIONS in the order in which later ones of an item count; those of one time and day are told apart by what they say."""
    item = np.asarray(whole(items["item_id"].dictionary_encode()).indices)
    times = (day_numbers(items["dt"]), micros(items["updated_at"]))
    order = np.lexsort((item, *times))
    begins = runs(*(of[order] for of in (item, *times)))
    alone = begins & np.append(begins[1:], True)[: len(order)]
    alike = order[~alone]
    said = [
        (title_key, title, sorted(cat), sorted(num))
        for title_key, title, cat, num in zip(
            *(items[name].take(pa.array(alike)).to_pylist() for name in VERSION_COLUMNS[3:]), strict=True
        )
    ]
    run = np.cumsum(begins)[~alone].tolist()
    order[~alone] = alike[sorted(range(len(alike)), key=lambda n: (run[n], said[n]))]
    return items.take(pa.array(order))


def _versions(impressions: pa.Table, items: pa.Table, shown: Column) -> tuple[pa.Array, pa.Array]:
    """Return which of `items`, in the order of time, is the newest known to each impression, and else the earliest; null: none."""
    item = np.asarray(pc.index_in(items["item_id"], shown), np.int64)
    of_impression = np.asarray(pc.index_in(impressions["item_id"], shown), np.int64)
    order = np.argsort(item, kind="stable")
    times, rank = np.unique(
        np.concatenate([micros(items["updated_at"])[order], micros(impressions["shown_at"])]), return_inverse=True
    )
    rank = rank.reshape(-1)
    codes = item[order] * len(times) + rank[: len(items)]
    stop = np.searchsorted(codes, of_impression * len(times) + rank[len(items) :], side="right")
    start, end = (np.searchsorted(item[order], of_impression, side=side) for side in ("left", "right"))
    place = np.append(order, 0)
    is_known = stop > start
    newest = pa.array(place[stop - 1], mask=~is_known)
    return newest, pa.array(np.where(is_known, place[stop - 1], place[start]), mask=end == start)


def _filled_up(own: pa.MapArray, more: pa.MapArray) -> pa.MapArray:
    """Return each map of `own` with the entries of `more`, by key, whose keys it lacks."""
    ours, theirs = entries(own), entries(more)
    names = pc.unique(pa.chunked_array([ours.keys, theirs.keys]))
    names = names.take(pc.array_sort_indices(names))
    has, offered = (of.row * len(names) + np.asarray(pc.index_in(of.keys, names), np.int64) for of in (ours, theirs))
    by_key = np.argsort(offered)
    lacking = by_key[~np.isin(offered[by_key], has)]
    rows = np.concatenate([ours.row, theirs.row[lacking]])
    order = pa.array(np.argsort(rows, kind="stable"))
    keys, values = (
        pa.concat_arrays([of_ours, of_theirs.take(pa.array(lacking))]).take(order)
        for of_ours, of_theirs in ((ours.keys, theirs.keys), (ours.values, theirs.values))
    )
    return maps(keys, values, np.bincount(rows, minlength=len(own)))
