"""Stage 3: the shallow layers over the day's new atomic behaviors only (PAPER.md, steps 1 and 4).

One text under one encoder_version is encoded once, ever: a key that has a vector is left alone, whichever run wrote it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.checkpoint import checkpoint_dir, encoder_version
from bahe_tasks.config import Config
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.stages.days_in_force import CATCH_UP_DAYS, excluded_days, first_impression_day
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.partition_records import partition_records

_TABLE = "behavior_embeddings"


class TextUnknownError(LookupError):
    """A behavior has an embedding, and the dictionary has no text of it."""


def encode_behaviors(
    day: date, config: Config, *, force: bool = False, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write an embedding for each new behavior of the day that has none; return what was new and the reuse rate.

    With them those of earlier days that died before they were encoded, whose rows the day may train on. A second run
    computes nothing and reports the same. `force` changes nothing here: a vector is, within rounding, a function of text and
    encoder_version.
    """
    version = encoder_version(config.encoder)
    new = _new_behaviors([day], config, encoder_version=version)
    left = _new_behaviors(_days_not_encoded(day, config, encoder_version=version), config, encoder_version=version)
    texts = pa.concat_tables([new, left]).group_by("behavior_key").aggregate([("text", "min")])
    encode_missing(day, config, texts.rename_columns(["behavior_key", "text"]), progress=progress)
    dedup = partition_records(config.tables_dir, "impressions")[str(day)].counts
    return {"new_behaviors": new.num_rows, "reuse_rate": dedup["reuse_rate"], "encoder_version": version}


def _new_behaviors(days: Sequence[date], config: Config, *, encoder_version: str) -> pa.Table:
    """Return (behavior_key, text) of what these days had to encode."""
    return read_table(
        config.tables_dir,
        "new_behaviors",
        columns=["behavior_key", "text"],
        partitions=" OR ".join(f"dt = '{d}'" for d in days) or "false",
        filters=pc.field("encoder_version") == encoder_version,
    )


def _days_not_encoded(day: date, config: Config, *, encoder_version: str) -> list[date]:
    """Return the days before `day`, as far back as it may train on, that may be read, had something to encode and encoded nothing."""
    encoded, excluded = partition_records(config.tables_dir, _TABLE), excluded_days(config)
    first = first_impression_day(day - timedelta(days=CATCH_UP_DAYS), config)
    had = {date.fromisoformat(dt): r.counts for dt, r in partition_records(config.tables_dir, "new_behaviors").items()}
    return [
        d
        for d in sorted(had.keys() - excluded)
        if first <= d < day and had[d]["new_behaviors"] and f"{encoder_version}/{d}" not in encoded
    ]


def encode_known(day: date, config: Config, keys: Sequence[str]) -> None:
    """Encode behaviors by what the dictionary says they are, those it has; into the partition of `day`.

    Days that are caught up with may have been written under another encoder, and listed what was new to that one.
    """
    encode_missing(day, config, _in_dictionary(config, keys))


def known_texts(config: Config, keys: Sequence[str]) -> list[str]:
    """Return the text of each of these behaviors, in their order. Raises `TextUnknownError`."""
    found = _in_dictionary(config, keys)
    text_of = dict(zip(found["behavior_key"].to_pylist(), found["text"].to_pylist(), strict=True))
    unknown = sorted({*keys} - text_of.keys())
    if unknown:
        raise TextUnknownError(
            f"{len(unknown)} behaviors have no text in atomic_behaviors, for example {unknown[0]}; was that table removed? "
            "Delete the whole tables folder and backfill it from the landing"
        )
    return [text_of[key] for key in keys]


def _in_dictionary(config: Config, keys: Sequence[str]) -> pa.Table:
    """Return (behavior_key, text) of those of the keys that the dictionary has."""
    of_keys = pc.field("behavior_key").isin(pa.array(keys, pa.string()))
    return read_table(config.tables_dir, "atomic_behaviors", columns=["behavior_key", "text"], filters=of_keys)


def encode_missing(
    day: date, config: Config, behaviors: pa.Table, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Encode the behaviors (behavior_key, text) that have no embedding yet, into the partition of `day`.

    Returns how many there were. The partition is written whole in one commit: a killed run leaves it as it was, and its
    finished chunks under HOME/work, from which the next one goes on. Of several processes on a machine one encodes, the
    others wait: what it has encoded they do not encode again.
    """
    with one_at_a_time(config.home / "work" / "encode" / "lock"):
        return _encode_missing(day, config, behaviors, progress)


def _encode_missing(day: date, config: Config, behaviors: pa.Table, progress: Callable[[int, int], None] | None) -> int:
    tables_dir, version = config.tables_dir, encoder_version(config.encoder)
    of_version = f"encoder_version = '{version}'"
    keys = pa.array(behaviors["behavior_key"].to_pylist(), pa.string())
    known = read_table(
        tables_dir,
        _TABLE,
        columns=["behavior_key"],
        partitions=of_version,
        filters=pc.field("behavior_key").isin(keys),
    )["behavior_key"]
    missing = behaviors.filter(pc.invert(pc.is_in(keys, value_set=pa.array(known.to_pylist(), pa.string())))).sort_by(
        "behavior_key"
    )
    chunk_dir = config.home / "work" / "encode" / version / str(day)
    if not missing.num_rows:
        shutil.rmtree(chunk_dir, ignore_errors=True)  # of a run that was killed after its commit
        return 0
    vectors = encode_texts(
        missing["text"].to_pylist(),
        checkpoint_dir=checkpoint_dir(config.encoder.checkpoint),
        encoder=config.encoder,
        chunk_dir=chunk_dir,
        progress=progress,
    )
    rows = pa.table(
        {
            "encoder_version": pa.repeat(version, missing.num_rows),
            "dt": pa.repeat(pa.scalar(day), missing.num_rows),
            "behavior_key": missing["behavior_key"],
            "embedding": pa.array([vector.tobytes() for vector in vectors], pa.binary()),
        },
        schema=arrow_schema(_TABLE),
    )
    stored = read_table(tables_dir, _TABLE, partitions=f"{of_version} AND dt = '{day}'")
    partition = pa.concat_tables([stored, rows]).sort_by("behavior_key")
    replace_partitions(
        tables_dir,
        _TABLE,
        partition,
        predicate=f"{of_version} AND dt = '{day}'",
        partitions={
            f"{version}/{day}": {
                "input_fingerprint": fingerprint(keys=partition["behavior_key"].to_pylist()),
                "counts": {"rows": partition.num_rows},
            }
        },
    )
    shutil.rmtree(chunk_dir)
    return missing.num_rows
