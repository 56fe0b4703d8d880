"""What stands in the landing folder: which days of which source, and a fingerprint of each day's files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

from bahe_tasks.fingerprint import file_sha256, fingerprint

SUFFIXES = (".jsonl", ".csv", ".parquet")
_NAMED = 5
_PARTITION = re.compile(r"dt=(\d{4}-\d{2}-\d{2})")


class LandingNotFoundError(FileNotFoundError):
    """The landing folder does not exist, or is none."""


def landed_files(landing_dir: Path, source: str, day: date) -> list[Path]:
    """Return the files of one source and day, sorted by name; none when its folder is missing or empty."""
    return [path for path in _visible(landing_dir, source, day) if _is_read(path)]


def passed_over(landing_dir: Path, source: str, day: date) -> list[str]:
    """Return the names in the folder of one source and day that no run reads, folders with a slash.

    Of hidden ones (`.`, `_`) nothing is said.
    """
    others = [path for path in _visible(landing_dir, source, day) if not _is_read(path)]
    return [f"{source}/dt={day}/{path.name}{'/' if path.is_dir() else ''}" for path in others]


def not_read(names: Sequence[str]) -> str:
    """Return a sentence about what was passed over, with the first few names."""
    first = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"not read, being folders or of another ending than {', '.join(SUFFIXES)}: {first}{more}"


def _visible(landing_dir: Path, source: str, day: date) -> list[Path]:
    folder = landing_dir / source / f"dt={day}"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))


def _is_read(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def landed_days(landing_dir: Path, source: str) -> list[date]:
    """Return the days of a source that have at least one file, in order.

    Raises `LandingNotFoundError` when the landing folder itself is missing, or is a file.
    """
    if not landing_dir.is_dir():
        what = "is not a folder" if landing_dir.exists() else "does not exist"
        raise LandingNotFoundError(
            f"the landing folder {landing_dir} {what}; set landing.folder in bahe.yaml or BAHE_LANDING, "
            "or fill it with `bahe import` or `bahe synthesize`"
        )
    folder = landing_dir / source
    partitions = folder.iterdir() if folder.is_dir() else ()
    days = sorted(day for day in map(_day_of, partitions) if day is not None)
    return [day for day in days if landed_files(landing_dir, source, day)]


def _day_of(partition: Path) -> date | None:
    """Return the day of a folder dt=YYYY-MM-DD, None for any other, the thirtieth of February among them."""
    match = _PARTITION.fullmatch(partition.name)
    with suppress(ValueError):
        return date.fromisoformat(match[1]) if match else None
    return None


class LandedTimes(NamedTuple):
    """When landed files of one source and day, and their folder, last changed, in ns since 1970.

    No copy and no `touch` sets it back (`st_ctime`), and it is the clock of the file system.
    """

    files: dict[str, int]
    """By name; those that a run reads."""
    folder: int
    """0 where there is no file. A file that no run reads changes it too."""

    @property
    def newest(self) -> int:
        """The newest of all, 0 where there is no file."""
        return max([*self.files.values(), self.folder])


def landed_times(landing_dir: Path, source: str, day: date) -> LandedTimes:
    """Return when what stands there of one source and day last changed."""
    files = landed_files(landing_dir, source, day)
    return LandedTimes(
        {path.name: path.stat().st_ctime_ns for path in files},
        files[0].parent.stat().st_ctime_ns if files else 0,
    )


def landing_fingerprint(landing_dir: Path, source: str, day: date) -> str:
    """Return the fingerprint of a source's files of one day: names and checksums."""
    files = landed_files(landing_dir, source, day)
    return fingerprint(files={path.name: file_sha256(path) for path in files})
