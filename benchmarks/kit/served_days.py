"""A backfill with a server beside it: after each day the next day's pairs are scored as `bahe score` scores them, before that day runs.

What a server said is then put beside what progressive validation said of the same impressions, by the same version. A day is left out, and
says why, where there is nothing to put beside each other: `no_champion` that is published, `no_impressions` on the day, `no_predictions` of
it, or predictions of `another_version` than the server's. Where a gate refused the eve, its champion is an older one, and so is the state.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import pandas as pd

from bahe_tasks.config import Config
from bahe_tasks.engines import inline
from bahe_tasks.stages.score_pairs import NothingToScoreWithError, score_file
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import connect, version_of
from benchmarks.kit.judged_days import JudgedDays
from benchmarks.kit.next_day import LandedRows

LeftOut = Literal["", "no_champion", "no_impressions", "no_predictions", "another_version"]
_READ = ["impression_id", "label", "click_probability", "model_version"]


@dataclass(frozen=True)
class ServedDay:
    """What a server said of a day's impressions, and what progressive validation did.

    `rows`: impression_id, user_id, item_id, `published`, `user_idle` and `item_idle` days, `is_repeated` (the pair was asked for before),
    and once the day has run label, `progressive` and model_version. A day that is left out may lack the scores.
    """

    day: date
    rows: pd.DataFrame
    champion_day: date | None = None
    model_version: int | None = None
    seconds: float = 0.0
    left_out: LeftOut = ""

    @property
    def is_of_an_older_champion(self) -> bool:
        """Whether the eve made no champion, so that the server's state is more than a day old."""
        return self.champion_day is not None and self.champion_day < self.day - timedelta(days=1)


def serve_days(
    days: JudgedDays, landed: LandedRows, config: Config, *, scratch: Path, told: bool
) -> Iterator[ServedDay]:
    """Backfill the days from `first` on and yield each judged one, once it has run.

    `told`: whether pairs tell what they show of items that no row described before. Raises `RuntimeError` where a day's predictions are of
    other impressions than its pairs.
    """
    asked: ServedDay | None = None
    for outcome in inline.run_backfill(days.first, days.last, config):
        print(f"{outcome.day}: {outcome.state}, {outcome.seconds:.1f} s {outcome.message}", file=sys.stderr)
        if asked is not None:
            yield beside_predictions(asked, config)
        following = outcome.day + timedelta(days=1)
        is_judged = days.report_from <= following <= days.last
        asked = serve(following, landed, config, scratch=scratch, told=told) if is_judged else None


def serve(day: date, landed: LandedRows, config: Config, *, scratch: Path, told: bool) -> ServedDay:
    """Score the pairs of a day that has not run by what is published now."""
    pairs = landed.pairs_of(day, told=told)
    rows = pairs[["impression_id", "user_id", "item_id"]].assign(
        user_idle=landed.idle_days("user_id", pairs["user_id"], day),
        item_idle=landed.idle_days("item_id", pairs["item_id"], day),
        is_repeated=pairs.duplicated(["user_id", "item_id"]),
    )
    if pairs.empty:
        return ServedDay(day, rows, left_out="no_impressions")
    file, out = (scratch / f"{name}-{day}.parquet" for name in ("pairs", "scored"))
    pairs.to_parquet(file, index=False)
    began = perf_counter()
    try:
        said = score_file(file, out, config)
    except NothingToScoreWithError:
        return ServedDay(day, rows, left_out="no_champion")
    seconds = perf_counter() - began
    scored = pd.read_parquet(out, columns=["impression_id", "click_probability"])
    if scored["impression_id"].tolist() != rows["impression_id"].tolist():
        raise RuntimeError(f"{out} holds other rows than {file}, or in another order")
    rows["published"] = scored["click_probability"].to_numpy(np.float64)
    version = version_of(connect(config), said["model_version"])
    return ServedDay(day, rows, version.day, version.version, seconds)


def beside_predictions(served: ServedDay, config: Config) -> ServedDay:
    """Return a served day with its progressive predictions, now that it has run."""
    if served.left_out:
        return served
    table = read_table(config.tables_dir, "progressive_predictions", columns=_READ, partitions=f"dt = '{served.day}'")
    predicted = table.to_pandas().rename(columns={"click_probability": "progressive"})
    if predicted.empty:
        return replace(served, left_out="no_predictions")
    if set(predicted["model_version"]) != {served.model_version}:
        return replace(served, left_out="another_version")
    rows = served.rows.merge(predicted, on="impression_id", how="inner", validate="one_to_one")
    if not len(rows) == len(served.rows) == len(predicted):
        raise RuntimeError(
            f"{served.day}: {len(served.rows)} pairs and {len(predicted)} predictions have {len(rows)} ids in common"
        )
    return replace(served, rows=rows)
