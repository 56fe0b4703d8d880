"""The same dedup work by the project's Spark job, by DuckDB and by Polars, over the same landing and the same store.

The work: read the parquet files of a day's events; fold the text to its canonical form; judge each row as the landing
contract says, with the first reason that holds; keep one copy of each good event and its number of copies, held for what
comes after; write the refused rows with reason, file and the row as it landed, in json; count good rows, surplus copies
and refused rows by reason; find the distinct behaviors (sha256 of the text) and write those that the dictionary of known
texts lacks, as (behavior_key, text). Texts beyond the plain characters go through the project's Python rule in each.

Unusual: Polars has no sha256 and no plan that calls Python for few rows only, so Python takes the keys of its distinct
texts, and its odd texts are folded first and joined. All three look whether texts are valid UTF-8, but only the Spark
job goes on where one is not; so the day has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bahe_tasks.behavior_key import canonical_text
from bahe_tasks.config import LandingConfig
from bahe_tasks.stores.delta_tables import data_files
from benchmarks.kit.landed_day import DAY
from spark_jobs.count_rows import count_rows
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.derive_many import num_buckets
from spark_jobs.derived.met_behaviors import distinct_behaviors, landed_behaviors
from spark_jobs.derived.run_in_buckets import InBuckets
from spark_jobs.derived.steps import rows_in
from spark_jobs.gather_behaviors import TEXTS, gather_behaviors
from spark_jobs.landed.canonical_texts import PLAIN_CHARACTERS
from spark_jobs.settle_landing import settled_folder, settled_landing

_FIRST, _END = DAY - timedelta(days=LandingConfig().late_days), DAY + timedelta(days=1)
_CONTENT = "user_id, feature, occurred_at, text, item_id, value"


class Found(NamedTuple):
    """What an engine found; all engines must find the same."""

    kept: int
    surplus_copies: int
    refused: dict[str, int]
    """Rows by reason."""


@dataclass(frozen=True)
class DedupWork:
    """Where the work is read and written."""

    landing: Path
    tables_dir: Path
    out: Path

    @property
    def events(self) -> str:
        """The day's files, as a pattern."""
        return f"{self.landing}/behavior_events/dt={DAY}/*.parquet"

    @property
    def dictionary(self) -> list[str]:
        """The files of the known texts."""
        return data_files(self.tables_dir, "atomic_behaviors")

    @property
    def new_texts(self) -> Path:
        """The folder for the texts that the dictionary lacks."""
        return self.out / "new"

    @property
    def refused(self) -> Path:
        """The folder for the rows that are refused."""
        return self.out / "refused"

    def make_folders(self) -> None:
        """Make the folders, for engines that do not."""
        for folder in (self.new_texts, self.refused):
            folder.mkdir(parents=True, exist_ok=True)

    def new_keys(self) -> set[str]:
        """The keys that were written."""
        keys = ds.dataset(self.new_texts, format="parquet").to_table(columns=["behavior_key"])
        return set(keys["behavior_key"].to_pylist())

    def refused_rows(self) -> list[tuple[str, ...]]:
        """The refused rows that were written, in order; of their json the columns that all engines write alike."""
        rows = ds.dataset(self.refused, format="parquet").to_table().to_pylist()
        raw = [json.loads(row["raw"]) for row in rows]
        return sorted(
            (row["reason"], row["source_file"], *(str(of.get(c)) for c in ("user_id", "feature", "text", "item_id")))
            for row, of in zip(rows, raw, strict=True)
        )


Engine = Callable[[DedupWork], Found]
"""Does the work."""


def by_spark(spark: SparkSession, plan: DedupPlan) -> Engine:
    """Return the project's own steps."""

    def run(work: DedupWork) -> Found:
        with settled_landing(spark, plan, ["behavior_events"]) as sources:
            rows = sources["behavior_events"]
            counts = count_rows(sources, days={"behavior_events": [DAY]})["behavior_events"][DAY]
            rows.quarantined.write.parquet(str(work.refused))
            run = InBuckets(
                spark,
                tables_dir=work.tables_dir,
                settled={"behavior_events": rows.kept},
                folder=settled_folder(plan.tables_dir, plan.day),
                buckets=num_buckets(spark, sum(part.num_bytes for part in rows.kept)),
            )
            met = distinct_behaviors(run, landed_behaviors(run, needed_of=None))
            work.new_texts.mkdir(parents=True)
            with pq.ParquetWriter(work.new_texts / "part.parquet", TEXTS) as writer:
                for texts in rows_in(gather_behaviors(plan, met).unwritten):
                    writer.write_table(texts)
            return Found(counts["rows"], counts["duplicates"], counts["reasons"])

    return run


def by_duckdb(*, memory: str, threads: int) -> Engine:
    """Return the work in SQL; it spills beside its output as Spark does."""

    def run(work: DedupWork) -> Found:
        work.make_folders()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": str(work.out / "duckdb"),
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.create_function("by_rule", _canonical_texts, ["VARCHAR"], "VARCHAR", type="arrow")  # type: ignore[call-overload]
            connection.execute(_SETTLED, {"files": work.events})
            connection.execute(
                f"COPY (SELECT reason, parse_filename(source_file) AS source_file, unnest(raws) AS raw FROM settled WHERE reason IS NOT NULL) "
                f"TO '{work.refused}/part.parquet' (FORMAT parquet)"
            )
            known = f"ANTI JOIN read_parquet({work.dictionary!r}) USING (behavior_key)" if work.dictionary else ""
            connection.execute(
                f"COPY (SELECT behavior_key, text FROM (SELECT sha256(text) AS behavior_key, text FROM "
                f"(SELECT DISTINCT text FROM settled WHERE reason IS NULL)) {known}) "
                f"TO '{work.new_texts}/part.parquet' (FORMAT parquet)"
            )
            by_reason = connection.execute(
                "SELECT reason, count(*), sum(copies) FROM settled GROUP BY reason ORDER BY reason NULLS FIRST"
            ).fetchall()
            (_, kept, copies), refused = by_reason[0], by_reason[1:]
            return Found(kept, int(copies) - kept, {reason: int(rows) for reason, _, rows in refused})

    return run


_FOLDED = f"""CASE WHEN regexp_full_match(text, '[{PLAIN_CHARACTERS}]*')
    THEN trim(CASE WHEN contains(text, '  ') THEN regexp_replace(text, ' {{2,}}', ' ', 'g') ELSE text END, ' ')
    ELSE by_rule(text) END"""
_REASON = f"""CASE
    WHEN coalesce(trim(user_id), '') = '' THEN 'missing_id'
    WHEN coalesce(trim(feature), '') = '' THEN 'missing_feature'
    WHEN occurred_at IS NULL THEN 'unreadable_time'
    WHEN occurred_at >= TIMESTAMPTZ '{_END} 00:00:00+00' THEN 'time_after_day'
    WHEN occurred_at < TIMESTAMPTZ '{_FIRST} 00:00:00+00' THEN 'too_late'
    WHEN NOT isfinite(value) THEN 'unreadable_number'
    WHEN coalesce(folded, '') = '' THEN 'empty_text' END"""
_RAW = f"to_json({{{', '.join(f'{name}: {name}' for name in _CONTENT.split(', '))}}})"
_SETTLED = f"""
    CREATE TEMP TABLE settled AS
    SELECT user_id, feature, occurred_at, folded AS text, item_id, value, reason,
        CASE WHEN reason IS NOT NULL THEN source_file END AS source_file,
        count(*) AS copies, list(raw) FILTER (reason IS NOT NULL) AS raws
    FROM (SELECT *, CASE WHEN reason IS NOT NULL THEN {_RAW} END AS raw FROM
        (SELECT *, {_REASON} AS reason FROM
            (SELECT *, {_FOLDED} AS folded FROM read_parquet($files, filename = 'source_file'))))
    GROUP BY ALL
"""


def by_polars(work: DedupWork) -> Found:
    """Do the work with Polars' streaming engine."""
    work.make_folders()
    rows = pl.scan_parquet(work.events, include_file_paths="source_file")
    plain = f"^[{PLAIN_CHARACTERS}]*$"
    odd = rows.filter(~pl.col("text").str.contains(plain)).select("text").unique().collect(engine="streaming")
    folded = odd.with_columns(folded=pl.Series([canonical_text(text) for text in odd["text"]], dtype=pl.String))
    text = pl.coalesce("folded", pl.col("text").str.replace_all(" {2,}", " ").str.strip_chars(" "))
    judged = rows.join(folded.lazy(), on="text", how="left").with_columns(folded=text).with_columns(reason=_reason())
    raw = pl.struct(_CONTENT.split(", ")).struct.json_encode()
    refused = judged.filter(pl.col("reason").is_not_null()).select("reason", "source_file", raw=raw)
    good = judged.filter(pl.col("reason").is_null()).with_columns(text="folded").group_by(*_CONTENT.split(", "))
    settled, quarantined = pl.collect_all([good.agg(copies=pl.len()), refused], engine="streaming")
    quarantined.with_columns(pl.col("source_file").str.split("/").list.last()).write_parquet(
        work.refused / "part.parquet"
    )
    texts = settled.select("text").unique()
    keys = pl.Series([hashlib.sha256(text.encode()).hexdigest() for text in texts["text"]], dtype=pl.String)
    found = texts.with_columns(behavior_key=keys).lazy()
    if work.dictionary:
        known = pl.scan_parquet(work.dictionary).select("behavior_key")
        found = found.join(known, on="behavior_key", how="anti")
    found.select("behavior_key", "text").collect(engine="streaming").write_parquet(work.new_texts / "part.parquet")
    by_reason = quarantined.group_by("reason").len().sort("reason")
    return Found(settled.height, int(settled["copies"].sum()) - settled.height, dict(by_reason.iter_rows()))


def _reason() -> pl.Expr:
    time = pl.col("occurred_at")
    blank = {name: pl.col(name).fill_null("").str.strip_chars(" ") == "" for name in ("user_id", "feature", "folded")}
    return (
        pl.when(blank["user_id"])
        .then(pl.lit("missing_id"))
        .when(blank["feature"])
        .then(pl.lit("missing_feature"))
        .when(time.is_null())
        .then(pl.lit("unreadable_time"))
        .when(time >= pl.lit(_END).cast(pl.Datetime("us", "UTC")))
        .then(pl.lit("time_after_day"))
        .when(time < pl.lit(_FIRST).cast(pl.Datetime("us", "UTC")))
        .then(pl.lit("too_late"))
        .when(~pl.col("value").is_finite())
        .then(pl.lit("unreadable_number"))
        .when(blank["folded"])
        .then(pl.lit("empty_text"))
    )


def _canonical_texts(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([canonical_text(text) for text in texts.to_pylist()], pa.string())
