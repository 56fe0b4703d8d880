"""Settles the landed rows of a day of few rows: one task of Spark, whose rows come to the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs.derived.file_parts import plain
from spark_jobs.derived.steps import part_of
from spark_jobs.landed.contents import as_bytes, as_json, as_table
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.settle import tallies
from spark_jobs.landed.sources import judge_piece, seen, settle_rows
from spark_jobs.settled_rows import SETTLED, SettledRows, contents_by_source, counted
from spark_jobs.tasks import run_in_tasks


def settle_few(
    spark: SparkSession, pieces: Sequence[Piece], sources: Sequence[str], *, late_days: int
) -> dict[str, SettledRows[pa.Table]]:
    """Return the settled rows of each source."""
    task = partial(_task, sources=sources, pieces=pieces, late_days=late_days)
    found = contents_by_source(run_in_tasks(spark, task, 1, SETTLED), sources)

    def settled(source: str) -> SettledRows[pa.Table]:
        contents = found[source]
        return SettledRows(
            [part_of(as_table(contents["kept"][0]))], as_table(contents["refused"][0]), *counted(contents)
        )

    return {source: settled(source) for source in sources}


def _task(
    _: Sequence[int], *, sources: Sequence[str], pieces: Sequence[Piece], late_days: int
) -> Iterator[tuple[str, str, bytes]]:
    """Judge and settle everything; yield rows of SETTLED."""
    for source in sources:
        of_source = [piece for piece in pieces if piece.source == source]
        judged = [(piece, part) for piece in of_source for part in judge_piece(piece, late_days=late_days)]
        settled = settle_rows(source, [of.good for _, of in judged], [of.refused for _, of in judged])
        contents = {
            "kept": as_bytes(plain(settled.kept)),
            "refused": as_bytes(settled.refused),
            "tallies": as_json(tallies(*settled)),
            "seen": as_json([seen(piece, of) for piece, of in judged]),
        }
        yield from ((source, kind, content) for kind, content in contents.items())
