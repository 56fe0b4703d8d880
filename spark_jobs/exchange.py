"""Rows that have a key in common come together: senders send rows to buckets, then each bucket is worked on.

Unusual: rows go through files in a shared folder, not through Spark's shuffle. On their way through the JVM ten million
rows cost half as much again as all that is done with them, even as Arrow batches in a binary column
(docs/decisions.md). A sender leaves a file for each kind of rows, and says which bucket each of its record batches is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

from spark_jobs.arrow_files import Reader, Writer
from spark_jobs.landing_files import remove_files
from spark_jobs.row_buckets import in_buckets
from spark_jobs.tasks import run_in_tasks

_SENT = "number int, place int, kind string, file string, content binary"
"""What the sender whose first number this is did, in order: sent a file, of which the content says the bucket of each record batch, or told something."""
_OPEN_AT_ONCE = 256
Rows = Mapping[str, Iterable[pa.Table]]
"""Rows by kind."""


class SentFile(NamedTuple):
    """A file of rows of one kind."""

    kind: str
    file: str
    bucket_of: np.ndarray  # (record batches,) int32


class Sent(NamedTuple):
    """What was sent and told, in the order of the senders."""

    files: list[SentFile]
    told: list[tuple[str, bytes]]


class Sender:
    """One of a few that send rows."""

    def __init__(self, prefix: str, buckets: int) -> None:
        self.buckets = buckets
        self._prefix = prefix
        self._files: list[tuple[str, Writer, list[int]]] = []
        self._open: dict[str, tuple[Writer, list[int]]] = {}
        self._told: list[tuple[str, bytes]] = []

    def send(self, kind: str, rows: pa.Table, bucket_of: np.ndarray) -> None:
        """Send rows to buckets (R,); beyond the last is none. A bucket gets them in the order in which they were sent."""
        for bucket, some in in_buckets(rows, bucket_of, self.buckets):
            writer, buckets = self._file(kind, some.schema)
            buckets += [bucket] * writer.write(some)

    def _file(self, kind: str, schema: pa.Schema) -> tuple[Writer, list[int]]:
        if kind not in self._open or self._open[kind][0].schema != schema:
            writer = Writer(f"{self._prefix}-{len(self._files)}.arrow", schema)
            self._open[kind] = writer, []
            self._files.append((kind, *self._open[kind]))
        return self._open[kind]

    def tell(self, kind: str, content: bytes) -> None:
        """Tell something to whoever asked for all this."""
        self._told.append((kind, content))

    def close(self) -> list[tuple[str, str, bytes]]:
        """Close the files; return the last columns of _SENT."""
        for _, writer, _ in self._files:
            writer.close()
        files = [(kind, writer.file, np.array(of, np.int32).tobytes()) for kind, writer, of in self._files]
        return [*files, *((kind, "", content) for kind, content in self._told)]


def send_rows(
    spark: SparkSession, send: Callable[[int, Sender], None], count: int, *, folder: str, name: str, buckets: int
) -> Sent:
    """Let every number below `count` send rows, each by one of a few senders, of which each has numbers in a row."""

    def work(numbers: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        sender = Sender(f"{folder}/{name}-{numbers[0]:06}-{attempt()}-sent", buckets)
        for number in numbers:
            send(number, sender)
        yield from ((numbers[0], place, *row) for place, row in enumerate(sender.close()))

    rows = sorted(run_in_tasks(spark, work, count, _SENT), key=lambda row: (row["number"], row["place"]))
    return Sent(
        [SentFile(row["kind"], row["file"], np.frombuffer(row["content"], np.int32)) for row in rows if row["file"]],
        [(row["kind"], row["content"]) for row in rows if not row["file"]],
    )


def work_on_buckets(
    spark: SparkSession,
    work: Callable[[int, Rows], Iterable[tuple[Any, ...]]],
    sent: Sequence[SentFile],
    ddl: str,
) -> list[dict[str, Any]]:
    """Work on each bucket that has rows, by kind; return the rows that this yields, of the columns in `ddl`.

    What was sent is gone afterwards.
    """
    buckets = np.unique(np.concatenate([np.zeros(0, np.int32), *(of.bucket_of for of in sent)])).tolist()

    def work_on(numbers: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        opened = lru_cache(_OPEN_AT_ONCE)(Reader)  # a file has rows for nearly every bucket
        for number in numbers:
            yield from work(buckets[number], _received(sent, buckets[number], opened))

    rows = run_in_tasks(spark, work_on, len(buckets), ddl)
    remove_files([of.file for of in sent])
    return rows


def attempt() -> int:
    """Return a number that only this try of the running task has, for the names of the files it writes."""
    return TaskContext.get().taskAttemptId()  # type: ignore[union-attr]  # it runs in a task


def _received(sent: Sequence[SentFile], bucket: int, opened: Callable[[str], Reader]) -> Rows:
    """Return the rows that were sent to a bucket, by kind, in the order of the senders."""
    by_kind: dict[str, list[SentFile]] = {}
    for of in sent:
        by_kind.setdefault(of.kind, []).append(of)
    return {kind: _rows(of_kind, bucket, opened) for kind, of_kind in by_kind.items()}


def _rows(sent: Sequence[SentFile], bucket: int, opened: Callable[[str], Reader]) -> Iterator[pa.Table]:
    for of in sent:
        for place in np.flatnonzero(of.bucket_of == bucket).tolist():
            yield opened(of.file).read(place)
