"""Writes the synthetic log, day by day, into a landing folder.

The same settings give the same bytes, and more days only add days. A landing folder holds one synthetic log: its
settings are kept in LANDING/oracle/settings.json, and another log is refused rather than mixed in.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from bahe_tasks.schemas import SOURCES
from bahe_tasks.sources.landing_files import landing_file, write_whole
from bahe_tasks.sources.synthetic.day_log import Rows, block_log, item_rows, row_count, rows_at, shelf
from bahe_tasks.sources.synthetic.flaws import broken_rows, doubled_rows
from bahe_tasks.sources.synthetic.oracle import write_oracle
from bahe_tasks.sources.synthetic.phrases import FEATURES, phrase_book
from bahe_tasks.sources.synthetic.population import first_world, next_world
from bahe_tasks.sources.synthetic.row_formats import FILE_FORMATS, FileFormat, file_bytes
from bahe_tasks.wrong_use import WrongUseError

GENERATOR = "synthetic-log/1"
"""Name of the rules that make the log; change what they draw, change the name."""
_USERS_PER_FILE = 20_000
_END = date(9999, 1, 1)
"""From here on no landed time is read (docs/contract.md)."""


class SyntheticLogError(WrongUseError):
    """A setting out of range, or a landing folder that holds another synthetic log."""


@dataclass(frozen=True)
class SyntheticCounts:
    """What was landed. The three tables count every line, doubled and broken ones included; `late_rows` are good
    rows whose time lies before the day they landed."""

    days: int
    users: int
    impressions: int
    clicks: int
    behavior_events: int
    items: int
    late_rows: int
    duplicate_rows: int
    broken_rows: int
    files_changed: int


def synthesize(
    landing: Path,
    *,
    days: int,
    users: int,
    seed: int,
    first_day: date = date(2024, 1, 1),
    impressions_per_user: float = 7.0,
    events_per_user: float = 10.0,
    flaw_share: float = 0.005,
    file_format: FileFormat = "jsonl",
) -> SyntheticCounts:
    """Land `days` days from `first_day` on, beginning with `users` users.

    `impressions_per_user` and `events_per_user` are means per user and day. `flaw_share` is the share of rows that
    land late, as many more that stand twice, and as many more that are broken; 0 gives a clean log. Raises
    `SyntheticLogError`.
    """
    for name, number, least in (("days", days, 1), ("users", users, 1), ("seed", seed, 0)):
        if number < least:
            raise SyntheticLogError(f"{name} must be at least {least}, not {number}")
    if days > (_END - first_day).days:
        raise SyntheticLogError(f"first_day must be at least {days} days before {_END}, not {first_day}")
    if not 0 <= flaw_share < 0.5 or impressions_per_user <= 0 or events_per_user <= 0:
        raise SyntheticLogError(
            "flaw_share must be in [0, 0.5), impressions_per_user and events_per_user above 0, "
            f"not {flaw_share}, {impressions_per_user}, {events_per_user}"
        )
    if file_format not in FILE_FORMATS:
        raise SyntheticLogError(f"the format must be one of {', '.join(FILE_FORMATS)}, not {file_format!r}")
    _claim(
        landing,
        {
            "generator": GENERATOR,
            "users": users,
            "seed": seed,
            "first_day": first_day.isoformat(),
            "impressions_per_user": impressions_per_user,
            "events_per_user": events_per_user,
            "flaw_share": flaw_share,
            "file_format": file_format,
        },
    )
    books = {feature: phrase_book(feature, seed=seed) for feature in FEATURES}
    world = first_world(users=users, seed=seed)
    tally: Counter[str] = Counter()
    for number in range(days):
        if number:
            world = next_world(world, users=users, seed=seed)
        day = first_day + timedelta(days=number)
        files = _DayFiles(landing, day, seed=seed, number=number, flaw_share=flaw_share, file_format=file_format)
        files.write("items", item_rows(world, day), tally=tally)
        day_shelf, ids, probabilities = shelf(world.items), [], []
        for part, start in enumerate(range(0, world.users.count, _USERS_PER_FILE)):
            log = block_log(
                world,
                day,
                slice(start, start + _USERS_PER_FILE),
                shelf=day_shelf,
                books=books,
                impressions_per_user=impressions_per_user,
                events_per_user=events_per_user,
                late_share=flaw_share,
                seed=seed,
            )
            files.write("behavior_events", log.events, part=part, tally=tally)
            files.write("impressions", log.impressions, part=part, tally=tally)
            ids.append(log.impressions["impression_id"])
            probabilities.append(log.probability)
            tally["clicks"] += int(log.impressions["label"].sum())
            tally["late_rows"] += log.late_rows
        tally["files_changed"] += write_oracle(
            landing, day, impression_ids=np.concatenate(ids), probability=np.concatenate(probabilities)
        )
    return SyntheticCounts(
        days=days,
        users=world.users.count,
        **{name: tally[name] for name in SyntheticCounts.__dataclass_fields__ if name not in ("days", "users")},
    )


@dataclass(frozen=True)
class _DayFiles:
    """The landing files of one day: adds the flawed rows to the good ones and writes them."""

    landing: Path
    day: date
    number: int
    seed: int
    flaw_share: float
    file_format: FileFormat

    def write(self, source: str, rows: Rows, *, tally: Counter[str], part: int = 0) -> None:
        """Write one file of a table and add what it holds to `tally`."""
        rng = np.random.default_rng([self.seed, self.number, 3, SOURCES.index(source), part])
        doubled = rows_at(rows, np.empty(0, dtype=np.int64))
        if source != "items":
            doubled = doubled_rows(rows, share=self.flaw_share, rng=rng)
        broken, torn = broken_rows(source, rows, self.day, share=self.flaw_share, rng=rng)
        landed = {name: np.concatenate([column, doubled[name], broken[name]]) for name, column in rows.items()}
        path = landing_file(self.landing, source, self.day, f"synthetic-{part:05d}.{self.file_format}")
        tally["files_changed"] += write_whole(path, file_bytes(landed, torn=torn, file_format=self.file_format))
        tally[source] += row_count(landed)
        tally["duplicate_rows"] += row_count(doubled)
        tally["broken_rows"] += row_count(broken)


def _claim(landing: Path, settings: dict[str, str | int | float]) -> None:
    """Record the settings of the log in the landing folder; refuse a folder that holds a log of other settings."""
    path = landing / "oracle" / "settings.json"
    content = json.dumps(settings, indent=2).encode() + b"\n"
    if path.is_file() and path.read_bytes() != content:
        raise SyntheticLogError(
            f"{landing} holds a synthetic log of other settings (see {path}); "
            "choose an empty landing folder, or remove that log first"
        )
    write_whole(path, content)
