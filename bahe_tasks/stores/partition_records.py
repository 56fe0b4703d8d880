"""What the commits of a table say of its partitions: the newest commit that names a partition tells its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bahe_tasks.stores.delta_tables import table_uri
from bahe_tasks.stores.opened_tables import open_table

COMMIT_METADATA_KEY = "userMetadata"
"""Key under which a commit's JSON document stands, in Spark and in delta-rs."""


@dataclass(frozen=True)
class PartitionRecord:
    """What the newest commit naming a partition says: its version, its time (UTC), what was read, what was counted.

    `judged` is the fingerprint of the partition that a gate's results are of, `landed` that of a day's landed impressions,
    `landing_ns` when landed files had last changed before they were read; they are empty of other partitions and of older commits.
    """

    version: int
    timestamp: datetime
    input_fingerprint: str
    counts: dict[str, Any]
    judged: str = ""
    landed: str = ""
    landing_ns: int = 0


_Cached = tuple[int, dict[str, PartitionRecord]]
_records: dict[tuple[str, str], _Cached] = {}  # commits never change, so what was read of them stays true


def partition_records(tables_dir: Path | str, name: str) -> dict[str, PartitionRecord]:
    """Return, per partition key, what the newest commit naming it recorded; nothing for a table that does not exist.

    Commits read once are remembered in the process; only newer ones are read again.
    """
    uri = table_uri(tables_dir, name)
    table = open_table(uri)
    if table is None:
        return {}
    newest = table.version()
    identity = (uri, str(table.metadata().id))
    seen, records = _records.get(identity, (-1, {}))
    if newest > seen:
        # Another thread may have brought the table further meanwhile: its newest commits come first.
        commits = [c for c in table.history(table.version() - seen) if c["version"] <= newest]
        records = records | _records_of(sorted(commits, key=lambda commit: commit["version"]))
        _records[identity] = (newest, records)
    return dict(records)


def _records_of(commits: Sequence[Mapping[str, Any]]) -> dict[str, PartitionRecord]:
    """Return the records of commits given oldest first. A commit with no document of ours says nothing."""
    records: dict[str, PartitionRecord] = {}
    for commit in commits:
        try:
            document = json.loads(commit.get(COMMIT_METADATA_KEY) or "{}")
        except json.JSONDecodeError:
            continue
        named = document.get("partitions", {}) if isinstance(document, dict) else {}
        for key, entry in named.items():
            records[key] = PartitionRecord(
                version=commit["version"],
                timestamp=datetime.fromtimestamp(commit["timestamp"] / 1000, tz=UTC),
                input_fingerprint=entry["input_fingerprint"],
                counts=entry.get("counts", {}),
                judged=entry.get("judged", ""),
                landed=entry.get("landed", ""),
                landing_ns=entry.get("landing_ns", 0),
            )
    return records
