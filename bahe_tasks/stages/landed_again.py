"""Which landed files are others now than those that a run took in. Reads only.

Files are not read anew where neither they nor their folder changed since the run looked. A folder that is gone, empty or
cannot be looked at tells nothing: landing folders are cleaned. Files that changed and cannot be read are others.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from bahe_tasks.config import Config
from bahe_tasks.landing import landed_times, landing_fingerprint
from bahe_tasks.schemas import SOURCES
from bahe_tasks.stores.partition_records import PartitionRecord, partition_records


def landed_again(config: Config) -> dict[str, list[str]]:
    """Return dt → sources whose landed files are no longer those that were taken in."""
    changed: dict[str, list[str]] = {}
    for source in SOURCES:
        for dt, record in partition_records(config.tables_dir, source).items():
            if _differs(config.landing_dir, source, date.fromisoformat(dt), record):
                changed.setdefault(dt, []).append(source)
    return changed


def _differs(landing_dir: Path, source: str, day: date, record: PartitionRecord) -> bool:
    taken = record.landed if source == "impressions" else record.input_fingerprint
    try:
        since = landed_times(landing_dir, source, day).newest > record.landing_ns  # never where nothing stands there
    except OSError:
        return False
    try:
        return bool(taken) and since and landing_fingerprint(landing_dir, source, day) != taken
    except OSError:
        return True
