"""Which rows of the table running_sums a day reads: those of its own keys, of files that lie in order.

A file has its rows by scope, and within a scope by owner where keys are of pairs, then by key (`state_of_keys.newest`,
`scope_sums.state_rows`); a large day's by bucket first, and a bucket is a range of keys. So most row groups of a few thousand rows can be passed over
for the least and greatest number that the file's footer tells of each.

Unusual: groups are picked here. Arrow's own data sets do so by a condition `isin` of fifty values at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial, reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import data_fragments
from spark_jobs.arrow_columns import Column
from spark_jobs.arrow_files import ROWS_A_BATCH
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.delta_partitions import in_days
from spark_jobs.derived.counted_rows import state_keys
from spark_jobs.derived.steps import Part

MOST_KEYS = 1 << 16
"""A day of more users, items, words or categorical values reads the state of all: little of it would be passed over."""
_OF_OWNERS = ("user_item", "pair")

Keys = np.ndarray | None
"""(K,) int64, sorted and distinct; `None`: all that there are."""


class Met:
    """The distinct values of some columns of rows that pass by, while they are few."""

    def __init__(self, *names: str) -> None:
        self._values: dict[str, pa.Array | None] = dict.fromkeys(names, pa.array([], pa.null()))

    def passing(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the rows."""
        for rows in tables:
            for name, values in self._values.items():
                if values is not None:
                    self._values[name] = _few(pa.chunked_array([values.cast(rows[name].type), pc.unique(rows[name])]))
            yield rows

    def are_many(self, name: str) -> bool:
        """Return whether a column had too many to say which."""
        return self._values[name] is None

    def keys(self, name: str, scope: str | None = None) -> Keys:
        """Return the keys that a column has, or those of a scope that the names in it have."""
        values = self._values[name]
        if values is None:
            return None
        known = values.drop_null()
        return np.unique(np.asarray(known.cast(pa.int64()) if scope is None else state_keys(scope, known), np.int64))


def _few(values: Column) -> pa.Array | None:
    distinct = pc.unique(values)
    return distinct if len(distinct) <= MOST_KEYS else None


def stored_state(plan: DedupPlan, wanted: Mapping[str, Keys], *, columns: Iterable[str]) -> list[Part]:
    """Return the state before the day of keys of some scopes, of pairs of users by the users' keys; and of the partitions that the
    day's own takes over all of those scopes."""
    taken_over = data_fragments(plan.tables_dir, "running_sums", partitions=_days(plan.days_to_merge))
    others = [day for day in plan.state_days if day not in plan.days_to_merge]
    read = data_fragments(plan.tables_dir, "running_sums", partitions=_days(others))
    names = tuple(columns)
    return [
        Part(partial(_of_fragment, fragment, keys, names), num_bytes)
        for fragments, keys in ((taken_over, dict.fromkeys(wanted)), (read, dict(wanted)))
        for fragment, num_bytes in fragments
    ]


def _days(days: Iterable[Any]) -> str:
    found = list(days)
    return in_days(found) if found else "false"


def _of_fragment(
    fragment: ds.ParquetFileFragment, wanted: Mapping[str, Keys], columns: tuple[str, ...]
) -> Iterator[pa.Table]:
    groups = _groups(fragment, wanted)
    if not groups:
        return
    batches = fragment.subset(row_group_ids=groups).to_batches(
        schema=arrow_schema("running_sums"),
        columns=list(columns),
        filter=reduce(or_, (_is_wanted(scope, keys) for scope, keys in wanted.items())),
        batch_size=ROWS_A_BATCH,
        batch_readahead=1,
    )
    for batch in batches:
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _is_wanted(scope: str, keys: Keys) -> pc.Expression:
    of_scope = pc.field("scope") == scope
    return of_scope if keys is None else of_scope & pc.field(_column(scope)).isin(pa.array(keys, pa.int64()))


def _column(scope: str) -> str:
    return "owner" if scope in _OF_OWNERS else "key"


def _groups(fragment: ds.ParquetFileFragment, wanted: Mapping[str, Keys]) -> list[int]:
    """Return the row groups of a file that may have rows of the keys."""
    footer = fragment.metadata
    place = {footer.schema.column(n).path: n for n in range(footer.num_columns)}

    def bounds(name: str, group: Any) -> tuple[Any, Any] | None:
        found = group.column(place[name]).statistics
        return (found.min, found.max) if found is not None and found.has_min_max else None

    def may_have(group: Any) -> bool:
        scopes = bounds("scope", group)
        for scope, keys in wanted.items():
            if scopes is None or scopes[0] <= scope <= scopes[1]:
                span = None if keys is None else bounds(_column(scope), group)
                if keys is None or span is None or _has_any(keys, *span):
                    return True
        return False

    return [n for n in range(footer.num_row_groups) if may_have(footer.row_group(n))]


def _has_any(keys: np.ndarray, least: int, greatest: int) -> bool:
    return bool(np.searchsorted(keys, least, "left") < np.searchsorted(keys, greatest, "right"))
