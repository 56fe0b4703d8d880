"""BAHE against the same LLM end-to-end over the full text: AUC and processor time, for every number of shallow layers.

    python -m benchmarks.split_study [--json] [--small] [--landing FOLDER --first-day YYYY-MM-DD] [--days 5] [--seeds 1]
        [--splits 3 5] [--processes 1] [--kept FOLDER] [--compute-dtype float32]

Each variant replays the same days with the same seeds (`kit.replay`: a day is scored, then trained on, warm start; the
first day is trained on alone). What the variants are: `kit.split_variants`. `--days` makes the study larger. On a GPU,
`--processes` replay side by side; processor time then says nothing of cost (`train_cost` does).

Rows, one a variant: `difference` is its AUC less that of full text on the same scored rows, mean over seeds, with the ends
`low` and `high` of the 95 % interval over resamples of users; the same for impressions of new users and of new items, which
have no impression on an earlier replayed day. `cpu_ratio` is processor time of training and scoring over that of full text,
`cpu_ratio_with_encoding` with the shallow layers over the texts of the table, once.

Figures: `auc_difference`, `auc_difference_low`, `auc_difference_high` and `half_width` are those of bahe, trained, at the default
split; `rows_for_half_width_0_002` is how many scored rows would be needed for a half-width of 0.002, if it falls with the
root of their number.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from bahe_tasks.config import Config, EncoderConfig, TrainingConfig
from benchmarks.kit.document import Document
from benchmarks.kit.paired_seeds import mean_auc, mean_auc_difference, rows_for_half_width
from benchmarks.kit.program import benchmark_arguments
from benchmarks.kit.split_runs import Replayed, replays
from benchmarks.kit.split_variants import SplitVariant, num_layers, split_variants
from benchmarks.kit.study_log import LateLabelsError, NoImpressionsError, StudyLog, add_log_arguments, read_study_log

SMALL = {"days": 2, "users": 5, "max_behaviors": 3}
HALF_WIDTH = 0.002


@dataclass(frozen=True)
class Measured:
    """What the seeds of a variant gave."""

    variant: SplitVariant
    scores: list[np.ndarray]  # of each seed, (R,)
    train_cpu_s: float  # mean over seeds, as all costs
    score_cpu_s: float
    encode_cpu_s: float

    @classmethod
    def of(cls, variant: SplitVariant, runs: list[Replayed]) -> Measured:
        """Average the costs of a variant's replays."""
        return cls(
            variant,
            [run.scores for run in runs],
            train_cpu_s=float(np.mean([run.train_cpu_s for run in runs])),
            score_cpu_s=float(np.mean([run.score_cpu_s for run in runs])),
            encode_cpu_s=float(np.mean([run.encode_cpu_s for run in runs])),
        )


def row_of(found: Measured, full_text: Measured, study: StudyLog) -> dict[str, Any]:
    """Return a variant's row of the document."""
    rows = [rows for _, rows in study.days[1:]]
    labels = np.concatenate([part.labels for part in rows]).astype(np.float64)
    users = np.concatenate([part.user_ids for part in rows])
    segments = {
        "": np.ones(len(labels), bool),
        "new_users_": study.of_new("user_ids"),
        "new_items_": study.of_new("item_ids"),
    }
    row: dict[str, Any] = {
        "variant": found.variant.kind,
        "num_shallow_layers": found.variant.num_shallow_layers,
        "tuning": found.variant.tuning,
        "rows": len(labels),
        "auc": mean_auc(labels, found.scores),
    }
    for name, chosen in segments.items():
        of_found, of_full = ([scores[chosen] for scores in of.scores] for of in (found, full_text))
        interval = mean_auc_difference(labels[chosen], of_found, of_full, users[chosen], seed=0)
        row |= {f"{name}difference": interval.estimate, f"{name}low": interval.low, f"{name}high": interval.high}
    cost, cost_of_full = (of.train_cpu_s + of.score_cpu_s for of in (found, full_text))
    return row | {
        "cpu_ratio": cost / cost_of_full,
        "cpu_ratio_with_encoding": (cost + found.encode_cpu_s) / cost_of_full,
        "train_cpu_s": found.train_cpu_s,
        "score_cpu_s": found.score_cpu_s,
        "encode_cpu_s": found.encode_cpu_s,
        "new_user_rows": int(segments["new_users_"].sum()),
        "new_item_rows": int(segments["new_items_"].sum()),
    }


def run(
    study: StudyLog, config: Config, *, splits: list[int], seeds: int, processes: int = 1, kept: Path | None = None
) -> Document:
    """Replay every variant; full text comes first. `config` says what the default split is."""
    document = Document("split_study")
    default = config.encoder.num_shallow_layers
    variants = split_variants(splits, default=default, num_layers=num_layers(config.encoder))
    full_text: Measured | None = None
    for variant, runs in replays(variants, study, config, seeds=seeds, processes=processes, kept=kept):
        found = Measured.of(variant, runs)
        full_text = full_text or found
        row = row_of(found, full_text, study)
        document.rows.append(row)
        print(
            "{variant} {num_shallow_layers} {tuning}: AUC {auc:.4f}, difference {difference:+.4f} "
            "({low:+.4f} to {high:+.4f}), processor time {cpu_ratio:.3f} of full text".format(**row),
            file=sys.stderr,
        )
        if variant == SplitVariant("bahe", default):
            labels = np.concatenate([rows.labels for _, rows in study.days[1:]])
            users = np.concatenate([rows.user_ids for _, rows in study.days[1:]])
            interval = mean_auc_difference(labels, found.scores, full_text.scores, users, seed=0)
            document.figures |= {
                "auc_difference": interval.estimate,
                "auc_difference_low": interval.low,
                "auc_difference_high": interval.high,
                "half_width": (interval.high - interval.low) / 2,
                "rows_for_half_width_0_002": rows_for_half_width(interval, len(labels), half_width=HALF_WIDTH),
                "rows": float(len(labels)),
                "seeds": float(seeds),
                "cpu_ratio": row["cpu_ratio"],
            }
    return document


def main() -> None:
    parser = benchmark_arguments(__doc__, small=f"{SMALL['users']} users, the default split alone")
    add_log_arguments(parser, days=5, users=60, max_behaviors=8)
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each variant")
    parser.add_argument("--splits", type=int, nargs="+", help="numbers of shallow layers; all unless given")
    parser.add_argument("--processes", type=int, default=1, help="replays at a time")
    parser.add_argument("--kept", type=Path, help="folder for the scores of ended replays, to go on from")
    parser.add_argument("--compute-dtype", default="float32", choices=("float32", "bfloat16"), help="of training")
    given = parser.parse_args()
    encoder = EncoderConfig()
    if given.small:
        given = argparse.Namespace(**{**vars(given), **SMALL, "landing": None, "first_day": None})
        given.splits = given.splits or [encoder.num_shallow_layers]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        study = read_study_log(given)
    except (NoImpressionsError, LateLabelsError) as error:
        parser.error(str(error))
    config = Config(
        home=Path(), encoder=encoder, training=TrainingConfig(num_threads=1, compute_dtype=given.compute_dtype)
    )
    splits = sorted({*(given.splits or range(num_layers(encoder) + 1)), encoder.num_shallow_layers})
    document = run(study, config, splits=splits, seeds=given.seeds, processes=given.processes, kept=given.kept)
    document.show(as_json=given.json)


if __name__ == "__main__":
    main()
