"""What one run of the Spark job reads and writes. The stage decides it; the job only carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bahe_tasks.config import LandingConfig, NumbersConfig, SequencesConfig
from bahe_tasks.landing import LandedTimes
from bahe_tasks.state_cover import days_to_merge


@dataclass(frozen=True)
class DedupPlan:
    """What one run reads and writes."""

    day: date
    tables_dir: str | Path
    """Folder or address that holds each Delta table under its name."""
    landing_dir: str
    ingest: Mapping[str, Mapping[date, str]]
    """source → landed partitions to take in now → their landing fingerprint; of impressions only the day."""
    excluded_days: frozenset[date]
    """Days whose inputs did not pass: nothing reads their rows."""
    encoder_version: str
    needed_from: date
    """First dt of the training and gate windows, but for days that are caught up with."""
    landing: LandingConfig
    sequences: SequencesConfig
    numbers: NumbersConfig
    state_days: tuple[date, ...]
    """Partitions of running_sums that hold the state before the day, newest first (`bahe_tasks.state_cover`)."""
    is_small: bool
    """What landed fits the driver: Spark settles it, and the driver does the rest."""
    input_fingerprint: str
    """Fingerprint of the stage; recorded with the day's partition of impressions."""
    landed_times: Mapping[str, Mapping[date, LandedTimes]] = field(default_factory=dict)
    """source → landed partition to take in → when it had last changed, as seen before it was read."""

    @property
    def state_before(self) -> date | None:
        """The day at whose end the state before this day stands; what landed later is counted by this run."""
        return self.state_days[0] if self.state_days else None

    @property
    def days_to_merge(self) -> tuple[date, ...]:
        """The partitions of running_sums whose rows the day's own partition takes over."""
        return days_to_merge(self.day, self.state_days)

    def days_of(self, source: str) -> frozenset[date]:
        """The partitions of a source that this run writes: those to take in, and always the day."""
        return frozenset(self.ingest.get(source, {})) | {self.day}
