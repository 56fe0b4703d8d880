"""Settles the landed rows of a day of many rows: rows that may be equal meet in a bucket, and its kept rows go to a file.

Unusual: rows pass Spark's shuffle as Arrow batches in a binary column, some thousands of rows in each: Spark takes longer to turn ten
million rows into its own than to do all of the work (`benchmarks.dedup_cost`). The rest of the job reads the files, and of them
only the columns that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.arrow_columns import text_hashes, whole
from spark_jobs.derived.file_parts import parts_of_files, write_rows
from spark_jobs.landed.contents import as_bytes, as_json, as_table, batch_of
from spark_jobs.landed.judge import Judged
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.settle import tallies
from spark_jobs.landed.sources import LANDED, judge_piece, seen, settle_rows
from spark_jobs.landing_files import write_to
from spark_jobs.row_buckets import in_buckets
from spark_jobs.settled_rows import SETTLED, SettledRows, contents_by_source, counted
from spark_jobs.shares import in_shares

_BYTES_A_BUCKET = 4 << 20
_BYTES_A_PART = 16 << 20
_PARTS_A_PIECE = 1 << 24
"""More than there can be."""
_JUDGED = "source string, bucket int, number bigint, kind string, content binary"
_REFUSED = "dt date, reason string, source_file string, raw string"


def settle_many(
    spark: SparkSession, pieces: Sequence[Piece], sources: Sequence[str], *, late_days: int, folder: str
) -> dict[str, SettledRows[DataFrame]]:
    """Return the settled rows of each source, which lie in files in the folder."""
    shares = in_shares(list(enumerate(pieces)), [piece.num_bytes for piece in pieces])
    buckets = 1 + sum(piece.num_bytes for piece in pieces) // _BYTES_A_BUCKET
    judge = partial(_judge_shares, shares=shares, buckets=buckets, late_days=late_days)
    judged = spark.range(0, len(shares), 1, max(len(shares), 1)).mapInArrow(judge, _JUDGED)

    def settle(bucket: pa.Table) -> pa.Table:
        return _settle_bucket(bucket, folder=folder)

    settled = judged.groupBy("source", "bucket").applyInArrow(settle, SETTLED).toArrow()
    found = contents_by_source(settled, sources)

    def of(source: str) -> SettledRows[DataFrame]:
        contents = found[source]
        kept, refused = (sorted(file.decode() for file in contents.get(kind, ())) for kind in ("kept", "refused"))
        quarantined = spark.read.schema(_REFUSED).parquet(*refused) if refused else spark.createDataFrame([], _REFUSED)
        return SettledRows(parts_of_files(kept), quarantined, *counted(contents))

    return {source: of(source) for source in sources}


def _judge_shares(
    batches: Iterable[pa.RecordBatch], *, shares: Sequence[Sequence[tuple[int, Piece]]], buckets: int, late_days: int
) -> Iterator[pa.RecordBatch]:
    """Judge the shares whose numbers are given; yield rows of _JUDGED."""
    for share in (shares[number] for batch in batches for number in batch["id"].to_pylist()):
        for number, parts in _together(share, late_days=late_days):
            source = parts[0][0].source
            refused = [of.refused for _, of in parts if len(of.refused)]
            bucket = (number // _PARTS_A_PIECE + number) % buckets
            rows = [(bucket, "seen", as_json([seen(piece, of) for piece, of in parts]))]
            if refused:
                rows.append((bucket, "refused", as_bytes(pa.concat_tables(refused))))
            for of_rows, some in _good_in_buckets(source, [of for _, of in parts if len(of.rows)], buckets):
                rows.append((of_rows, "good", as_bytes(some)))
            yield batch_of(_JUDGED, [(source, of, number, kind, content) for of, kind, content in rows])


def _together(
    share: Sequence[tuple[int, Piece]], *, late_days: int
) -> Iterator[tuple[int, list[tuple[Piece, Judged]]]]:
    """Judge pieces and yield, numbered in the order of all rows, parts of one source that make some megabytes together."""
    held: list[tuple[Piece, Judged]] = []
    number = share[0][0] * _PARTS_A_PIECE
    for _, piece in share:
        for judged in judge_piece(piece, late_days=late_days):
            if held and (held[0][0].source != piece.source or _size(held) > _BYTES_A_PART):
                yield number, held
                number, held = number + 1, []
            held.append((piece, judged))
    if held:
        yield number, held


def _size(parts: Sequence[tuple[Piece, Judged]]) -> int:
    return sum(int(of.rows.nbytes + of.refused.nbytes) for _, of in parts)


def _good_in_buckets(source: str, judged: Sequence[Judged], buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the good rows of each bucket that has any."""
    if not judged:
        return
    rows = pa.concat_tables([of.rows for of in judged])
    shared = whole(rows[LANDED[source].equal_share]).dictionary_encode()
    hashes = text_hashes(shared.dictionary) % np.uint64(buckets)
    is_good = np.concatenate([of.is_good for of in judged])
    bucket_of = np.full(len(rows), buckets)  # none
    bucket_of[is_good] = hashes[np.asarray(shared.indices.filter(pa.array(is_good)))]
    yield from in_buckets(rows, bucket_of, buckets)


def _settle_bucket(rows: pa.Table, *, folder: str) -> pa.Table:
    """Settle a bucket, given as rows of _JUDGED, and write what is kept and what is refused; return rows of SETTLED."""
    rows = rows.sort_by("number")  # the order in which they come is Spark's
    source, bucket = rows["source"][0].as_py(), rows["bucket"][0].as_py()
    contents: dict[str, list[pa.Buffer]] = {"good": [], "refused": [], "seen": []}
    for kind, content in zip(rows["kind"].to_pylist(), rows["content"], strict=True):
        contents[kind].append(content.as_buffer())
    settled = settle_rows(source, *([as_table(content) for content in contents[kind]] for kind in ("good", "refused")))
    attempt = TaskContext.get().taskAttemptId()  # type: ignore[union-attr]  # it runs in a task
    found = [("tallies", as_json(tallies(*settled)))] + [("seen", bytes(content)) for content in contents["seen"]]
    name = f"{source}-{bucket}-{attempt}"
    if len(settled.kept):
        file = f"{folder}/{name}.arrow"
        write_rows(file, settled.kept)
        found.append(("kept", file.encode()))
    if len(settled.refused):  # Spark reads it
        file = f"{folder}/{name}-refused.parquet"
        with write_to(file) as sink:
            pq.write_table(settled.refused, sink, compression="lz4")
        found.append(("refused", file.encode()))
    return pa.Table.from_batches([batch_of(SETTLED, [(source, kind, content) for kind, content in found])])
