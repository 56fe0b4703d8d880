"""How the seconds and the memory of the whole data path grow with a day's events, step by step.

    python -m benchmarks.log_scale [--events 10000 --events 100000] [--json] [--small]
    python -m benchmarks.log_scale --state 0 --state 3000000 [--taken-over] [--buckets] [--json]

Each size is a synthetic log of one day in parquet, in a home of its own; the path is run once at the smallest size
beforehand, to warm up. Steps: `synthesize` the log; `dedup_behaviors` and `validate_inputs`, the stages themselves;
`encode_behaviors` is not run, but its table is filled with random embeddings, unmeasured; `read_window` reads
impressions, sums, sequences and embeddings and lines them up; `collate` makes all batches of the day.

Rows: step, events, impressions, seconds, us_per_event, peak_mb of this process and peak_children_mb (Spark's JVM and
Python workers), from their start on: a JVM keeps the memory it once had.
With `--state`, in place of that: `dedup_behaviors` of the second day of 60 users, about 400 impressions, whose state of running
sums has so many rows (`state_pairs`) of other users' pairs with words beside the log's own; the step is `day_of_state`, seconds
the median of three runs in a warm session, `first_s` the first. `--taken-over`: of a day
whose own partition takes all of that state over, in place of one that takes over nothing. `--buckets`: derived by Spark, not by the driver.
Figures: `exponent_STEP`, the slope of log seconds over log events between the two largest sizes; `exponent`, the largest.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer

from bahe_tasks.checkpoint import embedding_width, encoder_version
from bahe_tasks.config import Config, LandingConfig, SparkConfig
from bahe_tasks.core.batches import Batch, collate
from bahe_tasks.core.columns import num_statistics
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import NUMBERS
from bahe_tasks.core.training_rows import ImpressionRows, row_columns
from bahe_tasks.sources.synthetic.synthesize import synthesize
from bahe_tasks.stages.dedup_behaviors import dedup_behaviors
from bahe_tasks.stages.embedding_index import EmbeddingIndex
from bahe_tasks.stages.impression_rows import impression_rows
from bahe_tasks.stages.mapped_window import map_window
from bahe_tasks.stages.validate_inputs import validate_inputs
from bahe_tasks.stages.window import read_window
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from benchmarks.kit.document import Document
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.settings import AsJson
from benchmarks.kit.state_of_others import write_state
from spark_jobs.session import FOR_MANY_DAYS, spark_session, stop_spark_session

DAY = date(2024, 1, 1)
STEPS = ("synthesize", "dedup_behaviors", "validate_inputs", "read_window", "collate")
_EVENTS_A_USER = 10
_SEED = 1
_MERGES_NOTHING = date(2024, 1, 3)
"""A day whose partition of the running sums has its own keys alone (`bahe_tasks.state_cover`), as every second day's; the next
takes this day's over."""
_USERS_OF_A_SMALL_DAY, _RUNS = 60, 3


def measure(home: Path, spark: SparkConfig, *, num_events: int) -> list[dict[str, Any]]:
    """Return a row for each step of a day of about `num_events` events."""
    config = Config(home=home, landing=LandingConfig(folder=str(home / "landing")), spark=spark)
    rows: list[dict[str, Any]] = []

    def step(name: str, action: Callable[[], Any]) -> Any:
        began = perf_counter()
        with PeakMemory() as own, PeakMemory(of_children=True) as children:
            result = action()
        seconds = perf_counter() - began
        rows.append({"step": name, "seconds": seconds, "peak_mb": own.peak_mb, "peak_children_mb": children.peak_mb})
        return result

    users = max(num_events // _EVENTS_A_USER, 1)
    step(
        "synthesize",
        lambda: synthesize(
            Path(config.landing_dir),
            days=1,
            users=users,
            seed=_SEED,
            first_day=DAY,
            events_per_user=_EVENTS_A_USER,
            file_format="parquet",
        ),
    )
    counts = step("dedup_behaviors", lambda: dedup_behaviors(DAY, config))
    step("validate_inputs", lambda: validate_inputs(DAY, config))
    write_random_embeddings(config)
    lined_up, index = step("read_window", lambda: read_day(config))
    step("collate", lambda: sum(len(batch.user_of) for batch in batches(lined_up, index, config)))
    landed = {"events": counts["behavior_events"]["landed"], "impressions": counts["impressions"]["landed"]}
    return [
        {"step": row.pop("step"), **landed, **row, "us_per_event": row["seconds"] / landed["events"] * 1e6}
        for row in rows
    ]


def measure_state(home: Path, spark: SparkConfig, *, pairs: list[int], taken_over: bool) -> list[dict[str, Any]]:
    """Return a row for each size of the state that a small day finds, or takes over."""
    config = Config(home=home, landing=LandingConfig(folder=str(home / "landing")), spark=spark)
    day = _MERGES_NOTHING + timedelta(days=int(taken_over))
    before = day - timedelta(days=1)
    synthesize(Path(config.landing_dir), days=2, users=_USERS_OF_A_SMALL_DAY, seed=_SEED, first_day=before)
    dedup_behaviors(before, config)
    validate_inputs(before, config)
    own = read_table(config.tables_dir, "running_sums")
    dedup_behaviors(day, config)  # to warm up
    rows = []
    for count in sorted(pairs):
        write_state(config.tables_dir, before, own, pairs=count)
        seconds = []
        with PeakMemory() as mine, PeakMemory(of_children=True) as children:
            for _ in range(_RUNS):
                began = perf_counter()
                counts = dedup_behaviors(day, config, force=True)
                seconds.append(perf_counter() - began)
        landed = {"events": counts["behavior_events"]["landed"], "impressions": counts["impressions"]["landed"]}
        peaks = {"peak_mb": mine.peak_mb, "peak_children_mb": children.peak_mb}
        rows.append(
            {
                "step": "day_of_state",
                "state_pairs": count,
                **landed,
                "seconds": median(seconds),
                "first_s": seconds[0],
                **peaks,
            }
        )
    return rows


def write_random_embeddings(config: Config) -> None:
    """Write an embedding of every new behavior of the day, as encode_behaviors would."""
    version, width = encoder_version(config.encoder), embedding_width(config.encoder.checkpoint)
    keys = read_table(config.tables_dir, "new_behaviors", columns=["behavior_key"])["behavior_key"].combine_chunks()
    values = np.random.default_rng(_SEED).standard_normal(len(keys) * width, np.float32).astype("<f2")
    embeddings = pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * width), len(keys), [None, pa.py_buffer(values)])
    rows = pa.table(
        {
            "encoder_version": pa.repeat(version, len(keys)),
            "dt": pa.repeat(pa.scalar(DAY), len(keys)),
            "behavior_key": keys,
            "embedding": embeddings.cast(pa.binary()),
        }
    )
    predicate = f"encoder_version = '{version}' AND dt = '{DAY}'"
    replace_partitions(config.tables_dir, "behavior_embeddings", rows, predicate=predicate, partitions={})


def read_day(config: Config) -> tuple[ImpressionRows, EmbeddingIndex]:
    """Return the day's impressions as a model reads them, and the embeddings they need."""
    window = read_window(DAY, config, [DAY])
    of_day = window.of_day()
    mapped = map_window(window, of_day, config, encoder_version=encoder_version(config.encoder))
    return impression_rows(window, of_day, mapped, sequences=config.sequences), mapped.index


def batches(rows: ImpressionRows, index: EmbeddingIndex, config: Config) -> Iterator[Batch]:
    """Yield all batches of the rows in their order."""
    spec = ModelSpec(
        features=(),
        cat_columns=(),
        num_statistics={},
        encoder_version=encoder_version(config.encoder),
        num_shallow_layers=config.encoder.num_shallow_layers,
        llm_config={},
        model=config.model,
        numbers=NUMBERS,
    ).grown(features=rows.histories, cat_columns=rows.cat, num_statistics=num_statistics(rows.num))
    columns = row_columns(rows, spec)
    size = config.training.batch_size_of(len(rows))
    for start in range(0, len(rows), size):
        places = np.arange(start, min(start + size, len(rows)))
        yield collate(rows, index.vectors, places, columns=columns, features=spec.features, device=torch.device("cpu"))


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the exponent of each step, and the largest; none where one size alone was run."""
    found: dict[str, float] = {}
    for step in STEPS:
        of_step = sorted((row for row in rows if row["step"] == step), key=lambda row: row["events"])[-2:]
        if len(of_step) == 2:
            fewer, more = of_step
            growth = math.log(more["seconds"] / fewer["seconds"])
            found[f"exponent_{step}"] = growth / math.log(more["events"] / fewer["events"])
    return found | ({"exponent": max(found.values())} if found else {})


def run(scratch: Path, *, events: list[int], spark: SparkConfig) -> Document:
    """Measure each size, after a run of the smallest that does not count."""
    document = Document("log_scale")
    spark_session(spark, app_name="log_scale")
    sizes = sorted(set(events))
    measure(scratch / "warm-up", spark, num_events=sizes[0])
    for num_events in sizes:
        document.rows += measure(scratch / f"{num_events}", spark, num_events=num_events)
    document.figures = figures(document.rows)
    return document


def main(
    events: Annotated[list[int] | None, typer.Option(help="Events of a day; 10,000 and 100,000 without.")] = None,
    driver_memory: Annotated[str, typer.Option(help="Memory of Spark's JVM.")] = "6g",
    state: Annotated[
        list[int] | None, typer.Option(help="Rows of other users' running sums, in place of events.")
    ] = None,
    taken_over: Annotated[bool, typer.Option(help="With --state: the day takes it over.")] = False,
    buckets: Annotated[bool, typer.Option(help="With --state: derived by Spark.")] = False,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="Days of 500 and 2,000 events.")] = False,
) -> None:
    """Run the data path over synthetic days of growing size."""
    spark = SparkConfig(driver_memory=driver_memory, jvm_options=FOR_MANY_DAYS)
    with tempfile.TemporaryDirectory(prefix="bahe-log-scale-") as scratch:
        if state:
            spark = replace(spark, driver_rows=0) if buckets else spark
            rows = measure_state(Path(scratch), spark, pairs=state, taken_over=taken_over)
            document = Document("log_scale", rows=rows)
        else:
            document = run(Path(scratch), events=[500, 2_000] if small else events or [10_000, 100_000], spark=spark)
        stop_spark_session()
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
