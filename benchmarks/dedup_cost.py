"""What the Spark dedup job costs beside DuckDB and Polars doing the same work, and with a large store of known behaviors.

    python -m benchmarks.dedup_cost [--events 100000 --events 1000000] [--store-keys 0 --store-keys 200000] [--json] [--small]

The work is that of `kit.dedup_engines` over a day of `kit.landed_day`; a run in which the engines do not count, keep, refuse
and write the same fails. The Spark session is started and warmed up on a small day beforehand, and
stands over all runs, as in a backfill. Engines take turns within every repetition; a row has the median. DuckDB has the
same memory and cores, and each engine writes its new keys anew.

Rows: engine, events, store_keys, seconds, events_per_s, peak_mb (of Python, or of Spark's JVM and Python workers, from
their start on: sampled). `whole job` (with --whole-job) is all of the stage: impressions, sequences, running sums, commits.
Figures, each only where its runs were made: `slowdown_vs_duckdb` and `slowdown_vs_polars`, of the most events with the
smallest store; `exponent`, the slope of log seconds over log events between the two largest days, smallest store;
`store_age_ratio`, seconds with the largest store by those with the smallest, most events; `_whole_job` is the job's.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from bahe_tasks.config import LandingConfig, NumbersConfig, SequencesConfig, SparkConfig
from bahe_tasks.schemas import SOURCES
from benchmarks.kit.dedup_engines import DedupWork, Found, by_duckdb, by_polars, by_spark
from benchmarks.kit.document import Document
from benchmarks.kit.landed_day import DAY, ENCODER_VERSION, fill_store, land_day
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.settings import AsJson
from spark_jobs.dedup_behaviors import dedup_behaviors
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.session import FOR_MANY_DAYS, spark_session, stop_spark_session

CORES = 2
WARM_UP_EVENTS = 500
SPARK, WHOLE_JOB = "spark", "whole job"


class EnginesDifferError(RuntimeError):
    """The engines did not find the same."""


def plan_of(landing: Path, tables_dir: Path) -> DedupPlan:
    """Return the plan of a day that is not small, in tables without earlier days."""
    return DedupPlan(
        day=DAY,
        tables_dir=tables_dir,
        landing_dir=str(landing),
        ingest={source: {DAY: "landed"} for source in SOURCES},
        excluded_days=frozenset(),
        encoder_version=ENCODER_VERSION,
        needed_from=DAY,
        landing=LandingConfig(),
        sequences=SequencesConfig(),
        numbers=NumbersConfig(),
        state_days=(),
        is_small=False,
        input_fingerprint="benchmark",
    )


def measure(
    scratch: Path, *, config: SparkConfig, num_events: int, store_keys: int, repetitions: int, whole_job: bool
) -> list[dict[str, Any]]:
    """Return a row for each engine on one day and one store. Raises `EnginesDifferError`."""
    landing, tables_dir = scratch / f"landing-{num_events}", scratch / "tables"
    num_texts = land_day(landing, num_events=num_events).num_texts
    fill_store(tables_dir, num_keys=store_keys, num_texts=num_texts)
    os.sync()  # else the disk is still writing gigabytes of store while engines run
    spark = spark_session(config, app_name="dedup_cost")
    plan = plan_of(landing, tables_dir)
    engines = {
        SPARK: by_spark(spark, plan),
        "duckdb": by_duckdb(memory=f"{config.driver_memory}b", threads=CORES),
        "polars": by_polars,
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    peak_mb = dict.fromkeys(engines, 0.0)
    found: dict[str, tuple[Found, set[str], list[tuple[str, ...]]]] = {}
    for _ in range(repetitions):
        for name, engine in engines.items():
            work = DedupWork(landing, tables_dir, scratch / "new" / name)
            shutil.rmtree(work.out, ignore_errors=True)
            with PeakMemory(of_children=name == SPARK) as memory:
                took, counts = _timed(lambda engine=engine, work=work: engine(work))  # type: ignore[misc]
            seconds[name].append(took)
            peak_mb[name] = max(peak_mb[name], memory.peak_mb)
            found[name] = counts, work.new_keys(), work.refused_rows()
    for name in engines:
        for what, theirs, ours in zip(("counts", "new keys", "refused rows"), found[name], found[SPARK], strict=True):
            if theirs != ours:
                raise EnginesDifferError(f"{name} has other {what} than Spark: {_short(theirs)}, not {_short(ours)}")
    if whole_job:
        with PeakMemory(of_children=True) as memory:
            seconds[WHOLE_JOB] = [_timed(lambda: dedup_behaviors(spark, plan))[0]]
        peak_mb[WHOLE_JOB] = memory.peak_mb
    shutil.rmtree(tables_dir, ignore_errors=True)
    return [
        {
            "engine": name,
            "events": num_events,
            "store_keys": store_keys,
            "seconds": statistics.median(of),
            "events_per_s": num_events / statistics.median(of),
            "peak_mb": peak_mb[name],
        }
        for name, of in seconds.items()
    ]


def _short(found: Any) -> str:
    return str(found) if isinstance(found, Found) else f"{len(found)} of them"


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = perf_counter()
    result = action()
    return perf_counter() - began, result


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of those rows; one that needs a row that is not there is left out."""
    seconds = {(row["engine"], row["events"], row["store_keys"]): row["seconds"] for row in rows}
    days, stores = sorted({row["events"] for row in rows}), sorted({row["store_keys"] for row in rows})
    found = {"events": float(days[-1]), "store_keys": float(stores[-1])}
    for other in ("duckdb", "polars"):
        ours = seconds[SPARK, days[-1], stores[0]]
        found[f"slowdown_vs_{other}"] = ours / seconds[other, days[-1], stores[0]]
    for engine, suffix in ((SPARK, ""), (WHOLE_JOB, "_whole_job")):
        if (engine, days[-1], stores[0]) not in seconds:
            continue
        if len(stores) > 1:
            old, young = (seconds[engine, days[-1], store] for store in (stores[-1], stores[0]))
            found[f"store_age_ratio{suffix}"] = old / young
        if len(days) > 1:
            more, fewer = (seconds[engine, day, stores[0]] for day in (days[-1], days[-2]))
            found[f"exponent{suffix}"] = math.log(more / fewer) / math.log(days[-1] / days[-2])
    return found


def run(
    scratch: Path,
    *,
    events: list[int],
    store_keys: list[int],
    repetitions: int,
    whole_job: bool,
    driver_memory: str,
) -> Document:
    """Measure each day with each store."""
    config = SparkConfig(
        master=f"local[{CORES}]",
        driver_memory=driver_memory,
        jvm_options=FOR_MANY_DAYS,
    )
    document = Document("dedup_cost")
    measure(
        scratch / "warm-up", config=config, num_events=WARM_UP_EVENTS, store_keys=0, repetitions=1, whole_job=whole_job
    )
    for num_events in sorted(set(events)):
        for keys in sorted(set(store_keys)):
            document.rows += measure(
                scratch,
                config=config,
                num_events=num_events,
                store_keys=keys,
                repetitions=repetitions,
                whole_job=whole_job,
            )
    document.figures = figures(document.rows)
    return document


def main(
    events: Annotated[list[int] | None, typer.Option(help="Events of a day; 20,000 and 100,000 without.")] = None,
    store_keys: Annotated[list[int] | None, typer.Option(help="Known behaviors; 0 and 200,000 without.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each engine.")] = 3,
    whole_job: Annotated[bool, typer.Option(help="Also time all of the stage, once.")] = False,
    driver_memory: Annotated[str, typer.Option(help="Memory of Spark's JVM, and limit of DuckDB's.")] = "6g",
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="A day of 2,000 events, a store of 10,000 keys, once.")] = False,
) -> None:
    """Time the dedup of a landed day by Spark, DuckDB and Polars."""
    with tempfile.TemporaryDirectory(prefix="bahe-dedup-cost-") as temporary:
        document = run(
            Path(temporary),
            events=[2_000] if small else events or [20_000, 100_000],
            store_keys=[0, 10_000] if small else store_keys or [0, 200_000],
            repetitions=1 if small else repetitions,
            whole_job=whole_job,
            driver_memory=driver_memory,
        )
        stop_spark_session()
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
