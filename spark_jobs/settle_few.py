"""Settles the landed rows of a day of few rows: one task of Spark, which leaves them in files.

Unusual: rows of a day that the driver holds easily would not pass Spark, whose JVM has less memory than the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs.arrow_files import write_rows
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.file_parts import parts_of_files, plain
from spark_jobs.derived.steps import part_of, rows_in
from spark_jobs.exchange import attempt
from spark_jobs.landed.contents import as_json
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.settle import tallies
from spark_jobs.landed.sources import judge_piece, seen, settle_rows
from spark_jobs.settled_rows import SETTLED, SettledRows, contents_by_source, counted
from spark_jobs.stored_impressions import read_stored
from spark_jobs.tasks import run_in_tasks


def settle_few(
    spark: SparkSession, pieces: Sequence[Piece], sources: Sequence[str], *, plan: DedupPlan, folder: str
) -> dict[str, SettledRows[pa.Table]]:
    """Return the settled rows of each source, of which the kept ones lie in files in the folder."""
    task = partial(_task, sources=sources, pieces=pieces, plan=plan, folder=folder)
    found = contents_by_source(run_in_tasks(spark, task, 1, SETTLED), sources)

    def settled(source: str) -> SettledRows[pa.Table]:
        contents = found[source]
        kept, refused = (
            parts_of_files([file.decode() for file in contents.get(kind, ())]) for kind in ("kept", "refused")
        )
        none = settle_rows(source, [], [], stored_of=partial(read_stored, plan=plan))
        quarantined = pa.concat_tables([none.refused, *rows_in(refused)])
        return SettledRows([part_of(plain(none.kept)), *kept], quarantined, *counted(contents))

    return {source: settled(source) for source in sources}


def _task(
    _: Sequence[int], *, sources: Sequence[str], pieces: Sequence[Piece], plan: DedupPlan, folder: str
) -> Iterator[tuple[str, str, bytes]]:
    """Judge and settle everything, and write what is kept and what is refused; yield rows of SETTLED."""
    for source in sources:
        of_source = [piece for piece in pieces if piece.source == source]
        late_days = plan.landing.late_days
        judged = [(piece, part) for piece in of_source for part in judge_piece(piece, late_days=late_days)]
        good, refused = [of.good for _, of in judged], [of.refused for _, of in judged]
        settled = settle_rows(source, good, refused, stored_of=partial(read_stored, plan=plan))
        yield source, "tallies", as_json(tallies(settled))
        yield source, "seen", as_json([seen(piece, of) for piece, of in judged])
        for kind, rows in (("kept", settled.kept), ("refused", settled.refused)):
            if len(rows):
                file = f"{folder}/{source}-{kind}-{attempt()}.arrow"
                write_rows(file, rows)
                yield source, kind, file.encode()
