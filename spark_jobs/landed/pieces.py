"""The landed files of some days, cut into pieces of which each is read by one task."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.landing_files import files_in, heads_of

FORMATS = (".jsonl", ".csv", ".parquet")
_BYTES_A_PIECE = 16 << 20
"""Of a file, as it lies there."""


class Piece(NamedTuple):
    """Part of a landed file: bytes of json lines, row groups of parquet, all of a csv file."""

    source: str
    dt: date
    file: str
    start: int
    end: int
    """Exclusive."""
    num_bytes: int

    @property
    def file_name(self) -> str:
        """The name, without folders."""
        return self.file.rpartition("/")[2]


def pieces_of(landing_dir: str, source: str, days: Collection[date]) -> list[Piece]:
    """Return the pieces of the files in `landing_dir`/`source`/dt=DAY. Other formats are passed over.

    A day without a folder has none. Raises `UnreadableFileError`.
    """
    found: list[Piece] = []
    for day in sorted(days):
        files = [file for file in files_in(f"{landing_dir.rstrip('/')}/{source}/dt={day}") if file.endswith(FORMATS)]
        for file, spans in zip(files, heads_of(files, _spans), strict=True):
            found += [Piece(source, day, file, *span) for span in spans]
    return found


def _spans(file: pa.NativeFile, name: str) -> list[tuple[int, int, int]]:
    """Return start, end and bytes of each piece of a file."""
    if name.endswith(".parquet"):
        return _of_row_groups(pq.read_metadata(file))
    size = file.size()
    if name.endswith(".csv"):  # a value may span lines, so there is no telling where a row begins
        return [(0, size, size)] if size else []
    starts = range(0, size, _BYTES_A_PIECE)
    return [(start, min(start + _BYTES_A_PIECE, size), min(_BYTES_A_PIECE, size - start)) for start in starts]


def _of_row_groups(metadata: pq.FileMetaData) -> list[tuple[int, int, int]]:
    spans: list[tuple[int, int, int]] = []
    first, held = 0, 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).total_byte_size
        if held and held + size > _BYTES_A_PIECE:
            spans.append((first, group, held))
            first, held = group, 0
        held += size
    return [*spans, (first, metadata.num_row_groups, held)] if metadata.num_row_groups else spans
