"""Which of the atomic behaviors that a run meets are new, and which the dictionary lacks.

New are needed keys with no embedding under this encoder_version (PAPER.md, steps 1 and 4).

Unusual: embeddings that this very day wrote do not count as there, so a second run reports the same numbers. Keys are sha256: those
of any day lie all over a table, and no order or partition of it could leave a part unread. So its column of keys is read
once for some millions of keys of the day, and nothing else happens to a key that the day does not have (`are_known`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.delta_tables import data_files, read_table
from spark_jobs.arrow_columns import present, repeated, whole
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.met_behaviors import MET
from spark_jobs.derived.steps import Part, together
from spark_jobs.known_keys import are_known

KEYS_AT_ONCE = 4_000_000
"""So many take 300 MB of the driver."""
TEXTS = pa.schema([("behavior_key", pa.string()), ("text", pa.string())])


class Behaviors(NamedTuple):
    """What is to be written, and how many of the keys are needed, are new, and are new but have no text anywhere."""

    unwritten: list[Part]
    """Rows of atomic_behaviors: texts that landed and are not in the dictionary. A part has at least one row."""
    new: list[Part]
    """Rows of new_behaviors."""
    num_needed: int
    num_new: int
    num_without_text: int


class _Looked(NamedTuple):
    """A part of K keys."""

    part: Part
    keys: pa.Array
    has_text: np.ndarray  # (K,) bool
    is_needed: np.ndarray  # (K,) bool

    @classmethod
    def at(cls, part: Part) -> _Looked:
        rows = together(part.read(), MET)
        return cls(part, whole(rows["behavior_key"]), present(rows["text"]), np.asarray(rows["is_needed"], bool))


def gather_behaviors(plan: DedupPlan, met: Sequence[Part]) -> Behaviors:
    """Return what is new of MET, whose keys are distinct over all parts."""
    unwritten: list[Part] = []
    new: list[Part] = []
    counts = np.zeros(3, np.int64)
    by_other_days = f"encoder_version = '{plan.encoder_version}' AND dt <> '{plan.day}'"
    for group in _groups(met):
        is_known = _are_in(plan, "atomic_behaviors", group, [of.has_text for of in group])
        is_embedded = _are_in(
            plan, "behavior_embeddings", group, [of.is_needed for of in group], partitions=by_other_days
        )
        for of, known, embedded in zip(group, is_known, is_embedded, strict=True):
            is_new = of.is_needed & ~embedded
            is_unwritten = of.has_text & ~known
            without = of.keys.filter(pa.array(is_new & ~of.has_text))
            texts = _texts_of(plan, without)
            lacking = pc.sum(pc.invert(pc.is_in(without, value_set=whole(texts["behavior_key"])))).as_py() or 0
            counts += [of.is_needed.sum(), is_new.sum(), lacking]
            if is_unwritten.any():
                unwritten.append(Part(partial(_texts_at, of.part, is_unwritten), of.part.num_bytes))
            if is_new.any():
                new.append(Part(partial(_new_at, of.part, is_new, texts, plan), of.part.num_bytes))
    return Behaviors(unwritten, new, *counts.tolist())


def _groups(met: Sequence[Part]) -> Iterator[list[_Looked]]:
    """Yield parts whose keys go through the driver together."""
    held: list[_Looked] = []
    for part in met:
        held.append(_Looked.at(part))
        if sum(len(of.keys) for of in held) >= KEYS_AT_ONCE:
            yield held
            held = []
    if held:
        yield held


def _are_in(
    plan: DedupPlan, name: str, group: Sequence[_Looked], asked: Sequence[np.ndarray], *, partitions: str | None = None
) -> list[np.ndarray]:
    """Return for each part which keys a table has, (K,) bool, of those that are `asked` for, (K,) bool; others it has not."""
    keys = pa.concat_arrays([of.keys.filter(pa.array(some)) for of, some in zip(group, asked, strict=True)])
    files = data_files(plan.tables_dir, name, partitions=partitions) if len(keys) else []
    found = np.concatenate(asked)
    found[found] = are_known(keys, files)
    return np.split(found, np.cumsum([len(some) for some in asked])[:-1])


def _texts_of(plan: DedupPlan, keys: pa.Array) -> pa.Table:
    """Return the texts of keys that did not land, those of a history that an encoder meets for the first time."""
    if not len(keys):
        return TEXTS.empty_table()
    return read_table(
        plan.tables_dir, "atomic_behaviors", columns=TEXTS.names, filters=pc.field("behavior_key").isin(keys)
    )


def _texts_at(part: Part, chosen: np.ndarray) -> Iterator[pa.Table]:
    yield together(part.read(), TEXTS).filter(pa.array(chosen))


def _new_at(part: Part, chosen: np.ndarray, known: pa.Table, plan: DedupPlan) -> Iterator[pa.Table]:
    rows = next(_texts_at(part, chosen))
    place = pc.index_in(rows["behavior_key"], known["behavior_key"])
    text = pc.coalesce(rows["text"], known["text"].take(place)) if len(known) else rows["text"]
    yield pa.table(
        {
            "dt": repeated(plan.day, pa.date32(), len(rows)),
            "encoder_version": repeated(plan.encoder_version, pa.string(), len(rows)),
            "behavior_key": rows["behavior_key"],
            "text": text,
        }
    )
