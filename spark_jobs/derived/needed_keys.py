"""Which atomic behaviors the windows of a day need: the distinct keys of their sequences and titles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.arrow_columns import text_hashes, whole
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.derive import Derived
from spark_jobs.derived.file_parts import selected
from spark_jobs.derived.readable import written_before
from spark_jobs.derived.steps import Part, Runner, Step, mapped, together

KEYS = pa.schema([("behavior_key", pa.string())])


def needed_keys(run: Runner, plan: DedupPlan, derived: Derived) -> list[Part]:
    """Return KEYS, each once, of the day's sequences and impressions and of those of the days since `plan.needed_from`."""

    def of_window(name: str, of_day: list[Part], column: str) -> list[Part]:
        earlier = written_before(plan, name, first=plan.needed_from)
        return [*selected(of_day, [column]), *run.stored(name, columns=[column], partitions=earlier)]

    keys = [
        *mapped(of_window("user_sequences", derived.sequences, "behavior_keys"), _of_sequences),
        *mapped(of_window("impressions", derived.impressions, "title_key"), _of_titles),
    ]
    return run.run(Step("keys", {"keys": _hashes}, _work), {"keys": keys}).get("keys", [])


def _work(parts: Mapping[str, Iterable[pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    yield "keys", _distinct(together(parts["keys"], KEYS)["behavior_key"])


def _of_sequences(rows: pa.Table) -> pa.Table:
    return _distinct(pc.list_flatten(rows["behavior_keys"]))


def _of_titles(rows: pa.Table) -> pa.Table:
    return _distinct(rows["title_key"].drop_null())


def _distinct(keys: pa.ChunkedArray) -> pa.Table:
    return pa.table([pc.unique(keys)], schema=KEYS)


def _hashes(rows: pa.Table) -> pa.Array:
    return pa.array(text_hashes(whole(rows["behavior_key"])).astype(np.int64))
