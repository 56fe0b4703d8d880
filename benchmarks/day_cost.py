"""Where the seconds of a replayed day go, without Airflow: model, Spark, commits, registry, gate, and everything else.

    python -m benchmarks.day_cost [LANDING --first 2013-06-01 --days 13] [--json] [--small]

Without LANDING a synthetic log is made. The first day pays what a process pays once (imports, the session's start) and the
intake of older partitions; it has a row of its own. Spark's JVM needs several days more to compile what it runs, which
is part of a backfill's first days alone: means are over the later half of the days after the first.

Rows: a task of the day, seconds of each kind as a mean over those days, of the day after the first, and of the first.
`model`: encoding, training and scoring, with the making of their batches. `spark`: the dedup job before its commits;
`spark_commits`: those, whoever writes them; `commits`: those of the other tasks; `registry`: MLflow; `gate`: Great Expectations; `rest`.
Figures: `seconds_per_day` is all but the model's `model_seconds_per_day`, with `pages_s_per_day`: the pages of Great
Expectations, which a backfill writes when no day is left, parted among its days. `import_s` and `session_s` are one process's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from transformers.utils import logging

from bahe_tasks.config import Config, LandingConfig
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.score import item_embeddings, score, user_embeddings
from bahe_tasks.core.train import train
from bahe_tasks.engines import inline
from bahe_tasks.engines.day_outcome import TASK_ORDER
from bahe_tasks.stages.dedup_behaviors import run_spark_job
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import validate
from bahe_tasks.stores.fine_tune_runs import find_finished_run, log_fine_tune_run
from bahe_tasks.stores.model_promotion import promote, record_gate, register
from bahe_tasks.stores.model_registry import champion, connect, local_model_folder, version_of, versions
from benchmarks.kit.document import Document
from benchmarks.kit.judged_days import SYNTHETIC_FIRST, synthetic
from benchmarks.kit.settings import AsJson
from benchmarks.kit.stopwatch import Stopwatch
from benchmarks.quality import tiny
from spark_jobs.session import spark_session
from spark_jobs.write_day import write_day

SPANS: dict[str, list[Callable[..., Any]]] = {
    "model": [encode_texts, train, score, user_embeddings, item_embeddings],
    "spark": [run_spark_job],
    "spark_commits": [write_day],
    "commits": [replace_partitions],
    "registry": [
        *(connect, versions, version_of, champion, local_model_folder),
        *(find_finished_run, log_fine_tune_run, register, record_gate, promote),
    ],
    "gate": [validate],
}
REST = "rest"


class DayFailedError(RuntimeError):
    """A replayed day that did not end as it should."""


def replay_days(config: Config, first: date, days: int) -> tuple[list[Stopwatch], float]:
    """Backfill the days; return the seconds of each by (task, kind within it …), and those after the last, a day."""
    watches = []
    spans = SPANS | {task: [getattr(inline, task)] for task in TASK_ORDER}
    outcomes = inline.run_backfill(first, first + timedelta(days=days - 1), config)
    for _ in range(days):
        watch = Stopwatch()
        with watch.watching(spans, packages=("bahe_tasks", "spark_jobs")):
            outcome = next(outcomes)
        if outcome.state not in ("done", "refused"):
            raise DayFailedError(f"{outcome.day} ended as {outcome.state}: {outcome.message}")
        watches.append(watch)
        print(f"{outcome.day}: {outcome.state}, {outcome.seconds:.1f} s", file=sys.stderr)
    return watches, _seconds(lambda: next(outcomes, None)) / days


def summarise(watches: list[Stopwatch], *, pages_s_per_day: float = 0.0) -> Document:
    """Return rows by task and the figures; the first of two or more days is that of `first_day`."""
    document = Document("day_cost")
    kinds = [*SPANS, REST]
    for task in TASK_ORDER:
        first, *others = [_by_kind(watch, task) for watch in watches]
        later = others[len(others) // 2 :]
        means = {kind: sum(seconds.get(kind, 0.0) for seconds in later) / len(later) for kind in kinds}
        row = {"task": task, **means, "total": sum(means.values())}
        row |= {"second_day": sum(others[0].values()), "first_day": sum(first.values())}
        document.rows.append(row)
    total, model = (sum(row[kind] for row in document.rows) for kind in ("total", "model"))
    document.figures = {
        "seconds_per_day": total - model + pages_s_per_day,
        "pages_s_per_day": pages_s_per_day,
        "model_seconds_per_day": model,
        "days": float(len(watches) - 1 - (len(watches) - 1) // 2),
    }
    return document


def _by_kind(watch: Stopwatch, task: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for (outermost, *inside), seconds in watch.seconds.items():
        if outermost == task:
            kind = inside[-1] if inside else REST
            found[kind] = found.get(kind, 0.0) + seconds
    return found


def _seconds(action: Callable[[], Any]) -> float:
    began = monotonic()
    action()
    return monotonic() - began


def _import_everything() -> None:
    subprocess.run([sys.executable, "-c", "import bahe_tasks.engines.inline"], check=True)


def main(
    landing: Annotated[Path | None, typer.Argument(help="Landing folder; a synthetic log without.")] = None,
    first: Annotated[datetime, typer.Option(help="First day, run but not in the means.")] = datetime(2013, 6, 1),
    days: Annotated[int, typer.Option(min=2, help="Days, the first with them; 2 with --small.")] = 13,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="A tiny random LLM and few users of the synthetic log.")] = False,
) -> None:
    """Replay a few days in this process and say where their seconds went."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="bahe-day-cost-") as temporary:
        scratch = Path(temporary)
        start, days = first.date(), 2 if small else days
        if small or landing is None:
            start = SYNTHETIC_FIRST
            landing = synthetic(scratch, days=days, users=30 if small else 60)
        config = tiny(scratch, landing) if small else Config(home=scratch)
        config = replace(config, landing=LandingConfig(folder=str(landing.resolve())))
        config = inline.for_days(days, config)
        import_s = _seconds(_import_everything)
        session_s = _seconds(lambda: spark_session(config.spark, app_name="bahe"))
        watches, pages_s = replay_days(config, start, days)
        document = summarise(watches, pages_s_per_day=pages_s)
        document.figures |= {"import_s": import_s, "session_s": session_s}
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
