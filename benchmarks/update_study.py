"""What fresh models are worth: warm start every day, re-fit on a window, weekly update, no update.

    python -m benchmarks.update_study [--json] [--small] [--landing FOLDER --first-day YYYY-MM-DD] [--days 24] [--seeds 1]
        [--set SECTION.NAME=VALUE]

The first `--base-days` days make a model, trained on day by day; every policy is then judged on the same days after it:

| policy | after a day |
|---|---|
| warm_start | the model goes on, trained on that day |
| refit_N | a model from the pre-trained weights is trained on the last N days, once over |
| weekly | after every 7th day the model goes on, trained on the last 7 days |
| no_update | nothing: the model of the base days stays |

Rows: pooled, then each day, of each policy: AUC, mean over seeds; `difference`, that AUC less warm start's, with the 95 %
interval over resamples of users; `cpu_ratio`, processor seconds of updates a judged day over those of warm start. A
re-fit of N days is made for the first judged day, too, from the last N of the base days: `--base-days` must hold them.

Figures: `freshness_auc`, warm start less no update, and `weekly_auc_loss`, warm start less weekly, pooled, with the lower ends
`_low`; `refit_N_auc_difference`, re-fit less warm start, with `_low`, and `refit_N_cpu_ratio`.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer
from transformers.utils import logging

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config
from benchmarks.kit.document import Document
from benchmarks.kit.paired_seeds import mean_auc, mean_auc_difference
from benchmarks.kit.program import benchmark_arguments
from benchmarks.kit.replay import Predictions, Trained, replay
from benchmarks.kit.settings import MODEL_SECTIONS, SET_HELP, config_with
from benchmarks.kit.study_log import LateLabelsError, NoImpressionsError, StudyLog, add_log_arguments, read_study_log
from benchmarks.kit.update_policies import NO_UPDATE, WARM_START, WEEKLY, UpdatePolicy, refit

SMALL = {"days": 10, "users": 3, "max_behaviors": 3, "base_days": 2, "windows": [2]}


class BaseTooShortError(ValueError):
    """Base days that do not hold the window of every policy, or leave no day to judge."""


@dataclass(frozen=True)
class Judged:
    """What the seeds of a policy gave on the judged days."""

    policy: UpdatePolicy
    predictions: list[Predictions]  # of each seed
    updates: int
    cpu_s_a_day: float  # of updates, a judged day, mean over seeds

    @property
    def scores(self) -> list[np.ndarray]:
        """Click probabilities of each seed, (R,)."""
        return [of_seed.scores for of_seed in self.predictions]


def replay_policy(
    policy: UpdatePolicy,
    study: StudyLog,
    embeddings: np.ndarray,
    config: Config,
    *,
    base: Trained,
    num_base_days: int,
    seed: int,
) -> Predictions:
    """Replay the days after the base days under a policy. `base` is left as it is."""
    since = study.days[num_base_days - 1][0]
    rows_after = partial(policy.rows_after, log=study.log, since=since)
    if policy.from_scratch:
        config = replace(config, training=replace(config.training, start_from="scratch"))
        days = study.days[num_base_days - 1 :]
        return replay(days, embeddings, config, texts=study.log.texts, seed=seed, rows_after=rows_after)[0]
    start = copy.deepcopy(base)
    days = study.days[num_base_days:]
    return replay(days, embeddings, config, texts=study.log.texts, seed=seed, start=start, rows_after=rows_after)[0]


def judge(policy: UpdatePolicy, predictions: list[Predictions], *, since: date) -> Judged:
    """Return a policy with its cost: updates after judged days, those for the first of them left out."""
    counted = [[u.cpu_s for u in of_seed.updates if u.day > since] for of_seed in predictions]
    num_days = len(np.unique(predictions[0].days))
    return Judged(policy, predictions, len(counted[0]), float(np.mean([sum(cpu) for cpu in counted])) / num_days)


def rows_of(found: Judged, warm: Judged) -> list[dict[str, Any]]:
    """Return the rows of a policy: all judged days, then each."""
    first = found.predictions[0]
    rows = []
    for day in [None, *np.unique(first.days)]:
        chosen = np.ones(len(first.days), bool) if day is None else first.days == day
        labels, users = first.labels[chosen], first.users[chosen]
        of_found, of_warm = ([scores[chosen] for scores in of.scores] for of in (found, warm))
        interval = mean_auc_difference(labels, of_found, of_warm, users, seed=0)
        rows.append(
            {
                "policy": found.policy.name,
                "day": "pooled" if day is None else str(day),
                "rows": len(labels),
                "auc": mean_auc(labels, of_found),
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "updates": found.updates,
                "update_cpu_s_a_day": found.cpu_s_a_day,
                "cpu_ratio": found.cpu_s_a_day / warm.cpu_s_a_day,
            }
        )
    return rows


def run(study: StudyLog, config: Config, *, windows: list[int], num_base_days: int, seeds: int) -> Document:
    """Replay every policy; `windows` are the days of the re-fits. Raises `BaseTooShortError`."""
    longest = max(windows)
    if not longest <= num_base_days < len(study.days):
        raise BaseTooShortError(
            f"{num_base_days} of {len(study.days)} days with impressions are base days: "
            f"at least {longest}, the longest window of a re-fit, and fewer than all are needed"
        )
    document = Document("update_study")
    folder = checkpoint_dir(config.encoder.checkpoint)
    embeddings = study.log.encode_read([rows for _, rows in study.days], folder, config.encoder)
    bases = [
        replay(study.days[:num_base_days], embeddings, config, texts=study.log.texts, seed=1000 * seed)[1]
        for seed in range(seeds)
    ]
    warm: Judged | None = None
    for policy in (WARM_START, NO_UPDATE, WEEKLY, *map(refit, windows)):
        predictions = [
            replay_policy(
                policy,
                study,
                embeddings,
                config,
                base=base,
                num_base_days=num_base_days,
                seed=1000 * seed + num_base_days,
            )
            for seed, base in enumerate(bases)
        ]
        found = judge(policy, predictions, since=study.days[num_base_days - 1][0])
        warm = warm or found
        rows = rows_of(found, warm)
        document.rows += rows
        document.figures |= _figures(found, warm)
        print(
            "{policy}: AUC {auc:.4f}, less warm start {difference:+.4f} ({low:+.4f} to {high:+.4f}), "
            "{update_cpu_s_a_day:.2f} processor seconds a day".format(**rows[0]),
            file=sys.stderr,
        )
    document.figures |= {"rows": float(document.rows[0]["rows"]), "seeds": float(seeds)}
    return document


def _figures(found: Judged, warm: Judged) -> dict[str, float]:
    """Return the figures of a policy; signs so that a loss by being less fresh is positive."""
    labels, users, name = warm.predictions[0].labels, warm.predictions[0].users, found.policy.name
    if found.policy == WARM_START:
        return {"warm_start_auc": mean_auc(labels, warm.scores)}
    if found.policy.from_scratch:
        interval = mean_auc_difference(labels, found.scores, warm.scores, users, seed=0)
        ratio = found.cpu_s_a_day / warm.cpu_s_a_day
        figure = f"{name}_auc_difference"
        return {figure: interval.estimate, f"{figure}_low": interval.low, f"{name}_cpu_ratio": ratio}
    figure = "freshness_auc" if found.policy == NO_UPDATE else "weekly_auc_loss"
    interval = mean_auc_difference(labels, warm.scores, found.scores, users, seed=0)
    return {figure: interval.estimate, f"{figure}_low": interval.low}


def main() -> None:
    parser = benchmark_arguments(__doc__, small=f"{SMALL['users']} users, {SMALL['days']} days, one re-fit")
    add_log_arguments(parser, days=24, users=20, max_behaviors=8)
    parser.add_argument("--base-days", type=int, default=14, help="days with impressions before the first judged one")
    parser.add_argument("--windows", type=int, nargs="+", default=[3, 7, 14], help="days of each re-fit")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each policy")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="SECTION.NAME=VALUE", help=SET_HELP
    )
    given = parser.parse_args()
    if given.small:
        given = argparse.Namespace(**{**vars(given), **SMALL, "landing": None, "first_day": None})
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = config_with(given.settings, home=Path(), small=given.small, sections=MODEL_SECTIONS)
    except typer.BadParameter as error:
        parser.error(str(error))
    config = replace(config, training=replace(config.training, num_threads=1))
    try:
        study = read_study_log(given)
    except (NoImpressionsError, LateLabelsError) as error:
        parser.error(str(error))
    document = run(study, config, windows=given.windows, num_base_days=given.base_days, seeds=given.seeds)
    document.show(as_json=given.json)


if __name__ == "__main__":
    main()
