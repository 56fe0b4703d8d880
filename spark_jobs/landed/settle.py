"""Which good rows go to a table, which are duplicates, and which impressions contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.arrow_columns import ODD_MULTIPLIER, whole
from spark_jobs.landed.earlier_impressions import StoredOf, delivered_again
from spark_jobs.landed.judge import REFUSED
from spark_jobs.landed.judge_events import EVENT_CONTENT
from spark_jobs.landed.judge_impressions import IMPRESSION_CONTENT
from spark_jobs.landed.judge_items import ITEM_CONTENT

CONFLICT = "conflicting_impression"
_IMPRESSION = ("dt", "impression_id")


class Settled(NamedTuple):
    """What became of the good rows of a source, with their number of `copies`, and the rows for the quarantine."""

    kept: pa.Table
    """The rows of the table."""
    refused: pa.Table
    """Without copies."""
    again: pa.Table
    """Rows that the table has from a day before."""


def settle_events(good: pa.Table, _stored_of: StoredOf) -> Settled:
    """Keep one of each event: EVENT_CONTENT and copies."""
    return _settled(_one_of_each(good, EVENT_CONTENT, marks=("user_id", "occurred_at")))


def settle_items(good: pa.Table, _stored_of: StoredOf) -> Settled:
    """Keep one of each item row: ITEM_CONTENT and copies."""
    return _settled(_one_of_each(good, ITEM_CONTENT, marks=("item_id", "updated_at")))


def settle_impressions(good: pa.Table, stored_of: StoredOf) -> Settled:
    """Keep one of each impression: dt, impression_id, IMPRESSION_CONTENT and copies.

    All rows of an impression_id whose rows of a day differ are refused, and late rows that contradict one of a day before.
    """
    kept = _one_of_each(good, (*_IMPRESSION, *IMPRESSION_CONTENT), marks=_IMPRESSION)
    versions = kept.select(_IMPRESSION).group_by(_IMPRESSION, use_threads=False).aggregate([([], "count_all")])
    conflicts = versions.filter(pc.field("count_all") > 1).select(_IMPRESSION)
    if len(conflicts):
        kept = kept.filter(pc.invert(_among(kept, conflicts)))
    is_again, contradicts = delivered_again(kept, stored_of)
    conflicts = pa.concat_tables([conflicts, kept.filter(pa.array(contradicts)).select(_IMPRESSION)])
    again, kept = kept.filter(pa.array(is_again)), kept.filter(pa.array(~is_again & ~contradicts))
    if not len(conflicts):
        return _settled(kept, again=again)
    refused = good.filter(_among(good, conflicts)).select([name for name in REFUSED.names if name != "reason"])
    refused = refused.append_column("reason", pa.repeat(pa.scalar(CONFLICT), len(refused)))
    return _settled(kept, again=again, refused=refused.select(REFUSED.names))


def _settled(kept: pa.Table, *, again: pa.Table | None = None, refused: pa.Table | None = None) -> Settled:
    return Settled(
        kept, REFUSED.empty_table() if refused is None else refused, kept.slice(0, 0) if again is None else again
    )


def tallies(settled: Settled) -> list[dict[str, Any]]:
    """Return what stands where: of each day the rows and surplus copies, and of each reason the rows in quarantine."""
    kept, refused, again = settled
    of_kept = kept.group_by("dt").aggregate([("copies", "sum"), ([], "count_all")]).to_pylist()
    of_again = again.group_by("dt").aggregate([("copies", "sum")]).to_pylist()
    of_refused = refused.group_by(["dt", "reason"]).aggregate([([], "count_all")]).to_pylist()
    return [
        *(_tally(of, rows=of["count_all"], duplicates=of["copies_sum"] - of["count_all"]) for of in of_kept),
        *(_tally(of, duplicates=of["copies_sum"]) for of in of_again),
        *(_tally(of, quarantined=of["count_all"]) for of in of_refused),
    ]


def _tally(of: dict[str, Any], *, rows: int = 0, duplicates: int = 0, quarantined: int = 0) -> dict[str, Any]:
    counts = {"rows": rows, "duplicates": duplicates, "quarantined": quarantined}
    return {"dt": str(of["dt"]), "reason": of.get("reason"), **counts}


def _one_of_each(rows: pa.Table, content: Sequence[str], *, marks: Sequence[str]) -> pa.Table:
    """Return the first of the rows that are equal in the columns, in their order, and how many copies there are.

    Only rows that share their `marks`, some of the columns, with another are compared.
    """
    kept = rows.select(content)
    shared = _shared([rows[name] for name in marks])
    copies = np.ones(len(rows), np.int64)
    if shared.any():
        alike = kept.filter(pa.array(shared))
        keys = pa.table([_comparable(alike[name]) for name in content], names=list(content))
        numbered = keys.append_column("row", pa.array(np.flatnonzero(shared)))
        groups = numbered.group_by(list(content), use_threads=False).aggregate([("row", "min"), ("row", "count")])
        copies[shared] = 0
        copies[np.asarray(groups["row_min"])] = np.asarray(groups["row_count"])
    is_first = copies > 0
    if not is_first.all():
        kept = kept.filter(pa.array(is_first))
    return kept.append_column("copies", pa.array(copies[is_first]))


def _shared(columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
    """Return which rows share the values of all columns with another row, (R,) bool; of the others some may be among them."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ (mixed >> np.uint64(29))) * ODD_MULTIPLIER + _codes(column).view(np.uint64)
    ordered = np.sort(mixed)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return np.zeros(len(mixed), bool)
    place = np.minimum(np.searchsorted(again, mixed), len(again) - 1)
    return again[place] == mixed


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each value, the same for equal ones, int64. No value may be null."""
    if pa.types.is_string(column.type):
        return np.asarray(whole(column.dictionary_encode()).indices, np.int64)
    return np.asarray(column.cast(pa.int64()) if column.type != pa.date32() else column.cast(pa.int32()), np.int64)


def _among(rows: pa.Table, impressions: pa.Table) -> pa.Array:
    wanted = {(row["dt"], row["impression_id"]) for row in impressions.to_pylist()}
    maybe = pc.is_in(rows["impression_id"], impressions["impression_id"].combine_chunks()).combine_chunks()
    chosen = np.array(maybe)
    suspects = rows.filter(maybe).select(_IMPRESSION).to_pylist()
    chosen[chosen] = [(row["dt"], row["impression_id"]) in wanted for row in suspects]
    return pa.array(chosen)


def _comparable(rows: pa.ChunkedArray) -> pa.Array:
    """Return a column that can be grouped by: texts, which may be long, as numbers, and maps, whose names are in order, as
    texts that tell any two of them apart."""
    if pa.types.is_string(rows.type):
        return whole(rows.dictionary_encode()).indices
    column = whole(rows)
    if not pa.types.is_map(column.type):
        return column
    texts = [part.cast(pa.string()) for part in (column.keys, column.items)]
    sized = [pc.binary_join_element_wise(pc.utf8_length(part).cast(pa.string()), part, ":") for part in texts]
    entries = pc.binary_join_element_wise(*sized, "=")
    offsets = column.offsets
    return pc.binary_join(pa.ListArray.from_arrays(offsets, entries), ";")
