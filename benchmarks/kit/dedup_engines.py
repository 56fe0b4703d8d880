"""The same dedup work by the project's Spark job, by DuckDB and by Polars, over the same landing and the same store.

The work: read the parquet files of a day's events; judge each row as the landing contract says (ids, time within the
day and the late days, number, text); fold the text to its canonical form; keep one copy of each event, held for what
comes after; find the distinct behaviors (sha256 of the text) and write those that the dictionary of known texts lacks,
as (behavior_key, text), in parquet. Texts beyond the plain characters go through the project's Python rule in each.

Unusual: Polars has no sha256 and no plan that calls Python for few rows only, so Python takes the keys of its distinct
texts, and its odd texts are folded first and joined.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import SparkSession

from bahe_tasks.behavior_key import canonical_text
from bahe_tasks.config import LandingConfig
from bahe_tasks.stores.delta_tables import data_files
from benchmarks.kit.landed_day import DAY
from spark_jobs.canonical_text import PLAIN_CHARACTERS
from spark_jobs.dedup_behaviors import settle
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.gather_behaviors import landed_texts
from spark_jobs.look_up_keys import look_up_keys

_FIRST, _END = DAY - timedelta(days=LandingConfig().late_days), DAY + timedelta(days=1)
_CONTENT = "user_id, feature, occurred_at, text, item_id, value"


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

    def new_keys(self) -> set[str]:
        """The keys that were written."""
        return set(
            ds.dataset(self.out, format="parquet").to_table(columns=["behavior_key"])["behavior_key"].to_pylist()
        )


Engine = Callable[[DedupWork], int]
"""Does the work and returns the number of events kept."""


def by_spark(spark: SparkSession, plan: DedupPlan) -> Engine:
    """Return the project's own steps."""

    def run(work: DedupWork) -> int:
        events = settle(spark, plan, "behavior_events").settled.kept
        no_items = spark.createDataFrame([], "title string")
        texts = landed_texts(plan, events=events, items=no_items).select("behavior_key", "text").localCheckpoint()
        known = look_up_keys(spark, texts, tables_dir=work.tables_dir, name="atomic_behaviors")
        texts.join(known, "behavior_key", "left_anti").write.parquet(str(work.out))
        return events.count()

    return run


def by_duckdb(*, memory: str, threads: int) -> Engine:
    """Return the work in SQL; it spills beside its output as Spark does."""

    def run(work: DedupWork) -> int:
        work.out.mkdir(parents=True, exist_ok=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": str(work.out.parent / "duckdb"),
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.create_function("by_rule", _canonical_texts, ["VARCHAR"], "VARCHAR", type="arrow")  # type: ignore[call-overload]
            connection.execute(_SETTLE, {"files": work.events})
            known = ""
            if work.dictionary:
                connection.execute(
                    "CREATE VIEW known AS SELECT behavior_key FROM read_parquet($1)".replace(
                        "$1", repr(work.dictionary)
                    )
                )
                known = "ANTI JOIN known USING (behavior_key)"
            connection.execute(
                f"COPY (SELECT behavior_key, text FROM (SELECT sha256(text) AS behavior_key, text FROM "
                f"(SELECT DISTINCT text FROM settled)) {known}) TO '{work.out}/new.parquet' (FORMAT parquet)"
            )
            return int(connection.execute("SELECT count(*) FROM settled").fetchall()[0][0])

    return run


_FOLDED = f"""CASE WHEN regexp_full_match(text, '[{PLAIN_CHARACTERS}]*')
    THEN trim(CASE WHEN contains(text, '  ') THEN regexp_replace(text, ' {{2,}}', ' ', 'g') ELSE text END, ' ')
    ELSE by_rule(text) END"""
_SETTLE = f"""
    CREATE TEMP TABLE settled AS
    SELECT {_CONTENT}, count(*) AS copies
    FROM (SELECT * REPLACE ({_FOLDED} AS text) FROM read_parquet($files))
    WHERE trim(user_id) <> '' AND trim(feature) <> '' AND text <> ''
      AND occurred_at >= TIMESTAMPTZ '{_FIRST} 00:00:00+00' AND occurred_at < TIMESTAMPTZ '{_END} 00:00:00+00'
      AND (value IS NULL OR isfinite(value))
    GROUP BY ALL
"""


def by_polars(work: DedupWork) -> int:
    """Do the work with Polars' streaming engine."""
    rows = pl.scan_parquet(work.events)
    plain = f"^[{PLAIN_CHARACTERS}]*$"
    odd = rows.filter(~pl.col("text").str.contains(plain)).select("text").unique().collect(engine="streaming")
    folded = odd.with_columns(folded=pl.Series([canonical_text(text) for text in odd["text"]], dtype=pl.String))
    text = pl.coalesce("folded", pl.col("text").str.replace_all(" {2,}", " ").str.strip_chars(" "))
    time = pl.col("occurred_at")
    good = (
        rows.join(folded.lazy(), on="text", how="left")
        .with_columns(text=text)
        .drop("folded")
        .filter(
            pl.col("user_id").str.strip_chars(" ") != "",
            pl.col("feature").str.strip_chars(" ") != "",
            pl.col("text") != "",
            time >= pl.lit(_FIRST).cast(pl.Datetime("us", "UTC")),
            time < pl.lit(_END).cast(pl.Datetime("us", "UTC")),
            pl.col("value").is_null() | pl.col("value").is_finite(),
        )
    )
    settled = good.group_by(*_CONTENT.split(", ")).agg(copies=pl.len()).collect(engine="streaming")
    texts = settled.select("text").unique()
    keys = pl.Series([hashlib.sha256(text.encode()).hexdigest() for text in texts["text"]], dtype=pl.String)
    found = texts.with_columns(behavior_key=keys).lazy()
    if work.dictionary:
        known = pl.scan_parquet(work.dictionary).select("behavior_key")
        found = found.join(known, on="behavior_key", how="anti")
    work.out.mkdir(parents=True, exist_ok=True)
    found.select("behavior_key", "text").collect(engine="streaming").write_parquet(work.out / "new.parquet")
    return settled.height


def emptied(work: DedupWork) -> DedupWork:
    """Remove what an earlier run wrote."""
    shutil.rmtree(work.out, ignore_errors=True)
    return work


def _canonical_texts(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([canonical_text(text) for text in texts.to_pylist()], pa.string())
