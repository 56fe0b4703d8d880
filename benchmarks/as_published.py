"""What a server gives that reads what was published the evening before, beside what progressive validation reports of the same rows.

    python -m benchmarks.as_published [LANDING --first 2013-02-28 --report-from 2013-07-15 --last 2013-08-31] [--json] [--small]
        [--home HOME] [--untold] [--set SECTION.NAME=VALUE]

The pipeline runs day after day in a home of its own. Progressive validation judges a day by the version of the eve, with histories and numbers as
of each impression. Here that version also scores the day's (user, item) pairs by the stage behind `bahe score`, from its published
embeddings, sums and tables, before the day runs. Both are judged on the same impressions. A third score tells what is the price of a state that is
a day old from what publishing loses: *day old* is the same version again, over histories and numbers as of the start of the day, read from
the landing folder in memory without any table but stored embeddings of texts. **What is published should be that**: of `rows_day_old` that have
such a score, `rows_apart` are those on which it is not, within `APART`.

Without LANDING a synthetic log is made. `--home` keeps the home, and goes on from the days it has. A server knows what it shows: pairs tell title and
columns of an item that no row had described by the evening before; with `--untold` they do not. Of two impressions of one pair both are scored and
judged, the second is counted in `repeated_pairs`. A day without anything to compare is left out (`kit/served_days.py` says when); one whose
eve made no champion is judged with the older one, and has no *day old* score. Nor has any row of a log of which a day's inputs
were refused, or much of which landed before `--first`. Sums of categorical values that were not met for `publish.publish_days` stand in it and are
not published.

Rows: `all`, each `day`, and `users` and `items` that were `active` on the eve, `idle_to_7` days before it, `idle_over_7`, `not_published` for having been
idle for `publish.publish_days` or more (of the former, by default), or are a `stranger`, never seen. `published_minus_…` are differences of AUC with the
95 % interval over resamples of users (`_low`, `_high`) and of days (`_by_day`). Figures: those of `all`, counts, and `seconds_per_1000_pairs` of the stage behind
`bahe score`, the loading of the model included.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from transformers.utils import logging

from bahe_tasks.config import Config, home_folder
from bahe_tasks.core.intervals import paired_auc_difference_interval
from bahe_tasks.core.metrics import auc, calibration, logloss
from bahe_tasks.stages.days_in_force import excluded_days
from benchmarks.kit.day_old_scores import can_be_told, day_old_scores
from benchmarks.kit.document import Document
from benchmarks.kit.judged_days import JudgedDays, Size, judged_days
from benchmarks.kit.next_day import STRANGER, LandedRows
from benchmarks.kit.served_days import ServedDay, serve_days
from benchmarks.kit.settings import SECTIONS, AsJson, Settings, config_with
from benchmarks.quality import tiny

SMALL, SYNTHETIC = Size(days=4, users=60), Size(days=9, users=300)
READ = (*SECTIONS, "gate", "publish", "spark")
APART = 1e-3
"""Click probability by which a published score may be off: embeddings are rounded to 16 bits on the way (DESIGN.md, invariant 2)."""
JUDGED = ("published", "progressive", "day_old")


def judge(served: list[ServedDay], day_old: np.ndarray | None, *, publish_days: int) -> Document:
    """Return what the compared days came to; `day_old` (R,) are scores of their rows, one day after another, NaN where there is none."""
    document = Document("as_published")
    compared = [day for day in served if not day.left_out]
    document.figures = {
        "days": float(len(compared)),
        "days_of_an_older_champion": float(sum(day.is_of_an_older_champion for day in compared)),
        "days_left_out": float(len(served) - len(compared)),
    }
    document.rows = [
        {"rows_of": "day", "value": str(day.day), "left_out": day.left_out, "pairs": len(day.rows)}
        for day in served
        if day.left_out
    ]
    if not compared:
        return document
    rows = pd.concat([day.rows.assign(day=np.datetime64(day.day, "s")) for day in compared], ignore_index=True)
    rows["day_old"] = np.nan if day_old is None else day_old
    whole = comparison(rows)
    document.figures |= {name: float(value) for name, value in whole.items()}
    document.figures["repeated_pairs"] = float(rows["is_repeated"].sum())
    seconds = sum(day.seconds for day in compared)
    document.figures["seconds_per_1000_pairs"] = seconds / len(rows) * 1000
    of_days = [
        {
            **{"rows_of": "day", "value": str(day.day), "champion_day": str(day.champion_day)},
            **{"model_version": day.model_version, "seconds": day.seconds},
            **comparison(rows[rows["day"] == np.datetime64(day.day, "s")]),
        }
        for day in compared
    ]
    of_idle = [
        {"rows_of": f"{who}s", "value": value, **comparison(rows[mask])}
        for who in ("user", "item")
        for value, mask in segments(rows[f"{who}_idle"].to_numpy(), publish_days=publish_days)
    ]
    document.rows = [{"rows_of": "all", "value": "", **whole}, *of_idle, *of_days, *document.rows]
    return document


def segments(idle: np.ndarray, *, publish_days: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the mask of each segment of `idle` days (R,)."""
    yield "active", idle == 0
    yield "idle_to_7", (idle > 0) & (idle <= 7)
    yield "idle_over_7", idle > 7
    yield "not_published", idle >= publish_days
    yield "stranger", idle == STRANGER


def comparison(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what published and progressive scores of the rows and day-old ones of those that have one are worth, and how far they are apart.

    NaN where a number does not exist.
    """
    labels = rows["label"].to_numpy(np.float64)
    scores = {name: rows[name].to_numpy(np.float64) for name in JUDGED}
    scored = {name: np.isfinite(score) for name, score in scores.items()}
    found: dict[str, Any] = {"rows": len(rows), "users": rows["user_id"].nunique()}
    for name, metric in (("auc", auc), ("logloss", logloss), ("calibration", calibration)):
        found |= {f"{name}_{of}": metric(labels[scored[of]], score[scored[of]]) for of, score in scores.items()}
    units = {"": rows["user_id"].to_numpy(object), "_by_day": rows["day"].to_numpy()}
    for other in JUDGED[1:]:
        name, read = f"published_minus_{other}", scored[other]
        pair = labels[read], scores["published"][read], scores[other][read]
        for suffix, drawn in units.items():
            between = paired_auc_difference_interval(*pair, drawn[read], seed=0)
            found[name] = between.estimate
            found |= {f"{name}_low{suffix}": between.low, f"{name}_high{suffix}": between.high}
    apart = np.abs(scores["published"] - scores["day_old"])[scored["day_old"]]
    found |= {"rows_day_old": len(apart), "rows_apart": int((apart > APART).sum())}
    found["most_apart"] = float(apart.max()) if len(apart) else float("nan")
    return found


def run(days: JudgedDays, config: Config, *, scratch: Path, told: bool) -> Document:
    """Serve the judged days, and compare."""
    landed = LandedRows.read(days.landing, first=days.first, last=days.last, late_days=config.landing.late_days)
    served = list(serve_days(days, landed, config, scratch=scratch, told=told))
    publish_days = config.publish.publish_days
    return judge(served, reference(served, landed, days, config), publish_days=publish_days)


def reference(served: list[ServedDay], landed: LandedRows, days: JudgedDays, config: Config) -> np.ndarray | None:
    """Return the day-old scores of the compared days' rows, (R,), None where none can be told."""
    compared = [day for day in served if not day.left_out]
    excluded = sorted(day for day in excluded_days(config) if day <= days.last)
    known = [
        landed.known_of(day.day).assign(model_version=day.model_version)
        for day in compared
        if not day.is_of_an_older_champion
    ]
    if not known:
        return None
    if excluded or not can_be_told(days.landing, days.first, config):
        why = f"inputs of {excluded[0]} are refused" if excluded else f"rows landed long before {days.first}"
        print(f"no score is of a state that is a day old: {why}", file=sys.stderr)
        return None
    of_the_eve = np.repeat([not day.is_of_an_older_champion for day in compared], [len(day.rows) for day in compared])
    found = np.full(len(of_the_eve), np.nan)
    found[of_the_eve] = day_old_scores(days.landing, pd.concat(known, ignore_index=True), config, last=days.last)
    return found


def main(
    landing: Annotated[Path | None, typer.Argument(help="Landing folder; a synthetic log without.")] = None,
    first: Annotated[datetime, typer.Option(help="First day run.")] = datetime(2013, 2, 28),
    report_from: Annotated[datetime, typer.Option(help="First day judged.")] = datetime(2013, 7, 15),
    last: Annotated[datetime, typer.Option(help="Last day judged.")] = datetime(2013, 8, 31),
    home: Annotated[
        Path | None, typer.Option(help="Home that is kept, and gone on from; a temporary one without.")
    ] = None,
    untold: Annotated[bool, typer.Option("--untold", help="Pairs tell nothing of items that are new.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="A tiny random LLM, few days and users of the synthetic log.")] = False,
) -> None:
    """Run the days, score each one's pairs by what was published the evening before, and compare."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="bahe-as-published-") as temporary:
        scratch = Path(temporary)
        config = config_with(settings, home=scratch, small=small, sections=READ)
        size = SMALL if small else SYNTHETIC if landing is None else None
        days = judged_days(landing, first=first, report_from=report_from, last=last, small=size, scratch=scratch)
        if small:
            config = tiny(scratch, days.landing)
        place = scratch / "home" if home is None else home_folder(home)
        place.mkdir(parents=True, exist_ok=True)
        config = replace(config, home=place, landing=replace(config.landing, folder=str(days.landing.resolve())))
        document = run(days, config, scratch=scratch, told=not untold)
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
