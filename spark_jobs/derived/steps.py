"""What a derivation is made of: parts, which are rows somewhere, and steps, which read them.

A step never looks beyond the rows of a key. So it may run once over all rows, or once for each bucket of keys, with
equal results. (The step `impressions` counts on one thing more: that its buckets are those of the step `users`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc


class Part(NamedTuple):
    """Some rows: `read` yields them, and can be pickled."""

    read: Callable[[], Iterable[pa.Table]]
    num_bytes: int
    file: str = ""
    """The file that holds just these rows, where one does."""


KeyOf = Callable[[pa.Table], pa.Array | pa.ChunkedArray]
"""Rows → the key of each, int64 of KEY_BITS all of which vary; null is a key that no other row has. Can be pickled."""
KEY_BITS = 60


class Step(NamedTuple):
    """What is done with rows that have a key in common."""

    name: str
    keys: Mapping[str, KeyOf]
    """Kind of rows that is read → their keys."""
    work: Callable[[Mapping[str, Iterable[pa.Table]]], Iterator[tuple[str, pa.Table]]]
    """kind → rows ↦ (kind, rows) of what is made. Can be pickled."""


Made = dict[str, list[Part]]
"""kind → rows."""


class Runner(Protocol):
    """How steps are run."""

    def run(self, step: Step, inputs: Mapping[str, Sequence[Part]]) -> Made:
        """Return what the step makes of the rows."""

    def settled(self, source: str, columns: Sequence[str] | None = None, *, coded: bool = False) -> list[Part]:
        """Return the day's settled rows of a source, with the key of their text.

        With `coded` and `columns` texts and keys may be dictionaries.
        """

    def stored(
        self, name: str, *, columns: Sequence[str], partitions: str | None, filters: pc.Expression | None = None
    ) -> list[Part]:
        """Return the rows of some partitions of a table that satisfy `filters`."""


def part_of(rows: pa.Table) -> Part:
    """Return rows in memory as a part."""
    return Part(partial(_once, rows), rows.nbytes)


def mapped(parts: Iterable[Part], function: Callable[[pa.Table], pa.Table]) -> list[Part]:
    """Return parts whose rows are what `function`, which can be pickled, makes of the rows of `parts`."""
    return [Part(partial(_mapped, part.read, function), part.num_bytes) for part in parts]


def rows_in(parts: Iterable[Part]) -> Iterator[pa.Table]:
    """Yield the rows of parts, in their order."""
    for part in parts:
        yield from part.read()


def some_at_once(tables: Iterable[pa.Table], num_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of tables, in their order, in tables of about so many bytes; tables of other columns stay apart."""
    held: list[pa.Table] = []
    size = 0
    for rows in tables:
        if held and (size >= num_bytes or held[0].schema != rows.schema):
            yield pa.concat_tables(held)
            held, size = [], 0
        held.append(rows)
        size += rows.nbytes
    if held:
        yield pa.concat_tables(held)


def condensed(tables: Iterable[pa.Table], condense: Callable[[pa.Table], pa.Table], *, rows_held: int) -> pa.Table:
    """Return rows that `condense` makes the same of as of the rows of all tables, one at least.

    It may be asked again of what it made and more. Never much more than `rows_held`, or twice what it makes, has to be held.
    """
    held: list[pa.Table] = []
    count, most = 0, rows_held
    for rows in tables:
        held.append(rows)
        count += len(rows)
        if count > most:
            held = [condense(pa.concat_tables(held))]
            count = len(held[0])
            most = max(rows_held, 2 * count)
    return pa.concat_tables(held)


def together(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return tables that have the columns of the schema as one."""
    return pa.concat_tables([schema.empty_table(), *(rows.select(schema.names).cast(schema) for rows in tables)])


def where(parts: Iterable[Part], condition: pc.Expression) -> list[Part]:
    """Return the rows of parts that satisfy a condition."""
    return mapped(parts, partial(_where, condition=condition))


def column(rows: pa.Table, *, name: str) -> pa.ChunkedArray:
    """Return a column, as a `KeyOf`."""
    return rows[name]


def _where(rows: pa.Table, *, condition: pc.Expression) -> pa.Table:
    return rows.filter(condition)


def _once(rows: pa.Table) -> Iterator[pa.Table]:
    yield rows


def _mapped(read: Callable[[], Iterable[pa.Table]], function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    for rows in read():
        yield function(rows)
