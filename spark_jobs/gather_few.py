"""Which atomic behaviors a day of few rows meets: `spark_jobs.gather_behaviors` without Spark."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.stores.delta_tables import data_files, read_table
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.known_keys import known_keys


class Behaviors(NamedTuple):
    """behavior_key → text of each kind of key; a text is None where it is nowhere."""

    needed: set[str]
    new: dict[str, str | None]
    unwritten: dict[str, str]
    """Texts that landed and are not in the dictionary."""


def gather_behaviors(
    plan: DedupPlan, *, landed: Iterable[tuple[pa.Table, str, str]], needed: Iterable[pa.ChunkedArray | pa.Array]
) -> Behaviors:
    """Return which keys are needed, which of those are new, and which texts the dictionary lacks.

    `landed`: tables with the columns of their keys and texts; `needed`: keys, with repetitions, null among them.
    """
    texts: dict[str, str] = {}
    for table, key, text in landed:
        distinct = table.group_by(key).aggregate([(text, "min")])
        texts |= dict(zip(distinct[key].to_pylist(), distinct[f"{text}_min"].to_pylist(), strict=True))
    wanted = {key for keys in needed for key in pc.unique(keys).to_pylist() if key is not None}
    known = _found(plan, "atomic_behaviors", texts)
    by_other_days = f"encoder_version = '{plan.encoder_version}' AND dt <> '{plan.day}'"
    new = sorted(wanted - _found(plan, "behavior_embeddings", wanted, partitions=by_other_days))
    elsewhere = [key for key in new if key not in texts]
    of_earlier = _texts_of(plan, elsewhere) if elsewhere else {}
    return Behaviors(
        needed=wanted,
        new={key: texts.get(key, of_earlier.get(key)) for key in new},
        unwritten={key: texts[key] for key in sorted(texts.keys() - known)},
    )


def _found(plan: DedupPlan, name: str, keys: Iterable[str], *, partitions: str | None = None) -> set[str]:
    files = data_files(plan.tables_dir, name, partitions=partitions)
    return set(known_keys(pa.array(sorted(keys), pa.string()), files).to_pylist()) if files else set()


def _texts_of(plan: DedupPlan, keys: Iterable[str]) -> dict[str, str]:
    """Return the texts of those of the keys that the dictionary has."""
    is_wanted = pc.field("behavior_key").isin(pa.array(sorted(keys), pa.string()))
    rows = read_table(plan.tables_dir, "atomic_behaviors", columns=("behavior_key", "text"), filters=is_wanted)
    return dict(zip(rows["behavior_key"].to_pylist(), rows["text"].to_pylist(), strict=True))
