"""Settles the landed rows of a day of many rows: rows that may be equal meet in a bucket, and its kept rows go to a file.

The rest of the job reads the files, and of them the columns that it needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.arrow_columns import text_hashes, whole
from spark_jobs.arrow_files import write_rows
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derived.file_parts import parts_of_files
from spark_jobs.derived.run_in_buckets import stored_parts
from spark_jobs.derived.steps import Part, some_at_once
from spark_jobs.exchange import Rows, Sender, SentFile, attempt, send_rows, work_on_buckets
from spark_jobs.landed.contents import as_json
from spark_jobs.landed.earlier_impressions import STORED
from spark_jobs.landed.judge import Judged
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.settle import tallies
from spark_jobs.landed.sources import LANDED, judge_piece, seen, settle_rows
from spark_jobs.landing_files import write_to
from spark_jobs.settled_rows import SETTLED, SettledRows, contents_by_source, counted
from spark_jobs.shares import in_shares
from spark_jobs.stored_impressions import days_before

_STORED = "impressions/stored"
_BYTES_A_BUCKET = 4 << 20
_BYTES_A_PART = 16 << 20
_REFUSED = "dt date, reason string, source_file string, raw string"


def settle_many(
    spark: SparkSession, pieces: Sequence[Piece], sources: Sequence[str], *, plan: DedupPlan, folder: str
) -> dict[str, SettledRows[DataFrame]]:
    """Return the settled rows of each source, which lie in files in the folder."""
    shares = in_shares(pieces, [piece.num_bytes for piece in pieces])
    buckets = 1 + sum(piece.num_bytes for piece in pieces) // _BYTES_A_BUCKET
    judge = partial(_judge_share, shares=shares, late_days=plan.landing.late_days)
    sent = send_rows(spark, judge, len(shares), folder=folder, name="judged", buckets=buckets)
    seen_of = [{"source": source, "kind": "seen", "content": content} for source, content in sent.told]
    stored = _send_stored(spark, _late_since(sent.told), plan=plan, folder=folder, buckets=buckets)
    settle = partial(_settle_bucket, sources=sources, folder=folder)
    settled = work_on_buckets(spark, settle, [*sent.files, *stored], SETTLED)
    found = contents_by_source([*settled, *seen_of], sources)

    def of(source: str) -> SettledRows[DataFrame]:
        contents = found[source]
        kept, refused = (sorted(file.decode() for file in contents.get(kind, ())) for kind in ("kept", "refused"))
        quarantined = spark.read.schema(_REFUSED).parquet(*refused) if refused else spark.createDataFrame([], _REFUSED)
        return SettledRows(parts_of_files(kept), quarantined, *counted(contents))

    return {source: of(source) for source in sources}


def _judge_share(number: int, sender: Sender, *, shares: Sequence[Sequence[Piece]], late_days: int) -> None:
    """Judge a share. Send its good rows to where equal ones meet and its refused rows to any one bucket; tell what was seen."""
    for parts in _together(shares[number], late_days=late_days):
        source, judged = parts[0][0].source, [of for _, of in parts]
        rows = pa.concat_tables([of.rows for of in judged])
        sender.send(f"{source}/good", rows, _buckets_of_good(source, rows, judged, sender.buckets))
        refused = pa.concat_tables([of.refused for of in judged])
        sender.send(f"{source}/refused", refused, np.full(len(refused), number % sender.buckets))
        sender.tell(source, as_json([seen(piece, of) for piece, of in parts]))


def _late_since(told: Sequence[tuple[str, bytes]]) -> date | None:
    days = [of["late_since"] for _, content in told for of in json.loads(content) if of["late_since"]]
    return date.fromisoformat(min(days)) if days else None


def _send_stored(
    spark: SparkSession, since: date | None, *, plan: DedupPlan, folder: str, buckets: int
) -> list[SentFile]:
    """Send impressions of the days before, that late ones may be of, to the buckets of those; nothing where none is late."""
    if since is None:
        return []
    parts = stored_parts(plan.tables_dir, "impressions", columns=STORED, partitions=days_before(plan, since))
    shares = in_shares(parts, [part.num_bytes for part in parts])
    send = partial(_send_share_stored, shares=shares)
    return send_rows(spark, send, len(shares), folder=folder, name="stored", buckets=buckets).files


def _send_share_stored(number: int, sender: Sender, *, shares: Sequence[Sequence[Part]]) -> None:
    for rows in some_at_once((rows for part in shares[number] for rows in part.read()), _BYTES_A_PART):
        sender.send(_STORED, rows, _buckets_of(rows[LANDED["impressions"].equal_share], sender.buckets))


def _together(share: Sequence[Piece], *, late_days: int) -> Iterator[list[tuple[Piece, Judged]]]:
    """Judge pieces and yield, in the order of all rows, parts of one source that make some megabytes together."""
    held: list[tuple[Piece, Judged]] = []
    size = 0
    for piece in share:
        for judged in judge_piece(piece, late_days=late_days):
            if held and (held[0][0].source != piece.source or size > _BYTES_A_PART):
                yield held
                held, size = [], 0
            held.append((piece, judged))
            size += judged.rows.nbytes + judged.refused.nbytes
    if held:
        yield held


def _buckets_of_good(source: str, rows: pa.Table, judged: Sequence[Judged], buckets: int) -> np.ndarray:
    """Return the bucket of each good row of the `judged`, whose rows are `rows`; refused ones have none."""
    is_good = np.concatenate([of.is_good for of in judged])
    bucket_of = np.full(len(rows), buckets)
    bucket_of[is_good] = _buckets_of(rows[LANDED[source].equal_share].filter(pa.array(is_good)), buckets)
    return bucket_of


def _buckets_of(texts: pa.ChunkedArray, buckets: int) -> np.ndarray:
    shared = whole(texts).dictionary_encode()
    return (text_hashes(shared.dictionary) % np.uint64(buckets))[np.asarray(shared.indices)]


def _settle_bucket(bucket: int, rows: Rows, *, sources: Sequence[str], folder: str) -> Iterator[tuple[str, str, bytes]]:
    """Settle what is in a bucket, and write what is kept and what is refused; yield rows of SETTLED."""
    stored = list(rows.get(_STORED, ()))

    def stored_of(late: pa.Table) -> pa.Table:
        return pa.concat_tables(stored) if stored else late.slice(0, 0)

    for source in sources:
        good, refused = (list(rows.get(f"{source}/{kind}", ())) for kind in ("good", "refused"))
        if not good and not refused:
            continue
        settled = settle_rows(source, good, refused, stored_of=stored_of)
        yield source, "tallies", as_json(tallies(settled))
        name = f"{folder}/{source}-{bucket}-{attempt()}"
        if len(settled.kept):
            write_rows(f"{name}.arrow", settled.kept)
            yield source, "kept", f"{name}.arrow".encode()
        if len(settled.refused):  # Spark reads it
            with write_to(f"{name}-refused.parquet") as sink:
                pq.write_table(settled.refused, sink, compression="lz4")
            yield source, "refused", f"{name}-refused.parquet".encode()
