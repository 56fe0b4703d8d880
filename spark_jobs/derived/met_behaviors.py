"""Which atomic behaviors a run meets: the texts that landed, and the keys that the windows of its models need, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.arrow_columns import Column, key_numbers, present, repeated, text_hashes, whole
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.derive import Derived
from spark_jobs.derived.file_parts import selected
from spark_jobs.derived.readable import written_before
from spark_jobs.derived.steps import KEY_BITS, Part, Runner, Step, condensed, mapped, together

MET = pa.schema([("behavior_key", pa.string()), ("text", pa.string()), ("is_needed", pa.bool_())])
"""`text` is null for a key that did not land; needed are the day's events and the windows' keys."""

_ROWS_HELD = 1_000_000
"""A hundred bytes each, and the texts that landed."""


def met_behaviors(run: Runner, plan: DedupPlan, derived: Derived) -> list[Part]:
    """Return MET, each key once, of what landed and of the windows since `plan.needed_from`."""

    def of_window(name: str, of_day: list[Part], column: str) -> list[Part]:
        earlier = written_before(plan, name, first=plan.needed_from)
        return [*selected(of_day, [column]), *run.stored(name, columns=[column], partitions=earlier)]

    needed = [
        *mapped(of_window("user_sequences", derived.sequences, "behavior_keys"), _of_sequences),
        *mapped(of_window("impressions", derived.impressions, "title_key"), _of_titles),
    ]
    titles = mapped(run.settled("items", ["title_key", "title"], coded=True), _of_items)
    return distinct_behaviors(run, [*landed_behaviors(run, needed_of=plan.day), *titles, *needed])


def landed_behaviors(run: Runner, *, needed_of: date | None) -> list[Part]:
    """Return MET of the events that landed, of which those of one day are needed, or none."""
    events = run.settled("behavior_events", ["dt", "behavior_key", "text"], coded=True)
    return mapped(events, partial(_of_events, needed_of=needed_of))


def distinct_behaviors(run: Runner, met: Sequence[Part]) -> list[Part]:
    """Return MET with each key once, in order within a part."""
    return run.run(Step("behaviors", {"met": _places}, _work), {"met": met}).get("met", [])


def _work(parts: Mapping[str, Iterable[pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    tables = (together([rows], MET) for rows in chain([MET.empty_table()], parts["met"]))
    yield "met", _each_once(condensed(tables, _each_once, rows_held=_ROWS_HELD)).sort_by("behavior_key")


def _each_once(met: pa.Table) -> pa.Table:
    return _distinct(*(met[name] for name in MET.names))


def _of_events(rows: pa.Table, *, needed_of: date | None) -> pa.Table:
    needed = pc.equal(rows["dt"], pa.scalar(needed_of, pa.date32()))
    return _distinct(rows["behavior_key"], rows["text"], pc.fill_null(needed, False))


def _of_items(rows: pa.Table) -> pa.Table:
    return _distinct(rows["title_key"], rows["title"], repeated(False, pa.bool_(), len(rows)))


def _of_sequences(rows: pa.Table) -> pa.Table:
    return _of_keys(pc.list_flatten(rows["behavior_keys"]))


def _of_titles(rows: pa.Table) -> pa.Table:
    return _of_keys(rows["title_key"].drop_null())


def _of_keys(keys: pa.ChunkedArray) -> pa.Table:
    distinct = pc.unique(keys)
    count = len(distinct)
    return pa.table([distinct, pa.nulls(count, pa.string()), repeated(True, pa.bool_(), count)], schema=MET)


def _distinct(keys: Column, texts: Column, needed: Column) -> pa.Table:
    """Return MET with each key once, and with a text where any of its rows has one."""
    coded = whole(keys.dictionary_encode())
    codes, count = np.asarray(coded.indices), len(coded.dictionary)
    row = np.full(count, -1)
    row[codes] = np.arange(len(codes))
    has_text = present(texts)
    row[codes[has_text]] = np.flatnonzero(has_text)
    is_needed = np.zeros(count, bool)
    is_needed[codes[np.asarray(whole(needed), bool)]] = True
    met = row >= 0
    columns = [coded.dictionary, whole(texts).take(pa.array(row, mask=~met)).cast(pa.string()), pa.array(is_needed)]
    return pa.table(columns, schema=MET).filter(pa.array(met))


def _places(rows: pa.Table) -> pa.Array:
    """Return a number for each key that deals keys out evenly."""
    keys = whole(rows["behavior_key"])
    numbers = key_numbers(keys)
    if numbers is None:
        numbers = text_hashes(keys) << np.uint64(16)  # which have 48 bits
    return pa.array((numbers >> np.uint64(64 - KEY_BITS)).astype(np.int64))
