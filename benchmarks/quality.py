"""AUC of BAHE beside public click models, on the same rows of the same days, each day scored before it is trained on.

    python -m benchmarks.quality [LANDING --first 2013-02-28 --report-from 2013-10-01 --last 2013-11-06] [--json] [--small]

Without LANDING a synthetic log is made, whose best reachable AUC is known. Days from `--first` on are trained on, those
from `--report-from` on are judged. `--cache` keeps progressive scores, so that a run can be done in pieces (`--only`) and
a model need not run twice, for the same files, days and settings; empty it when the code of a model changes. `--set` changes a setting of BAHE, as
`--set encoder.num_shallow_layers=6`, which leaves no layer of MiniLM deep; `--set numbers.as_of=day_start` has the numbers of all
models as of the start of the day, `--set sequences.history_as_of=day_start` their histories.

Row: `auc` and the other metrics are means over seeds of one model's; `auc_of_mean` is that of the seeds' mean probability;
`bahe_minus` is BAHE's less the model's, on mean probabilities, `low` and `high` the ends of its 95 % interval over resamples
of users, `low_by_day` and `high_by_day` of days.
Figures, with `bahe` among the models: its `auc`; with a peer beside it `auc_minus_best_peer` with the lower end of its
95 % interval over resamples of users, on mean probabilities, against the peer that is best on these very rows;
`cold_auc_minus_trees` likewise on rows whose user or item was seen fewer than ten times before; on a synthetic log
`oracle_share`, (AUC - ½) / (best reachable AUC - ½). BAHE learns outcome values too (docs/model.md), peers the click alone.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from transformers.utils import logging

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config, EncoderConfig
from bahe_tasks.core.encoder import encode_by_whole_llm
from bahe_tasks.core.intervals import paired_auc_difference_interval
from bahe_tasks.core.metrics import auc, evaluate
from bahe_tasks.core.resampling import Interval
from bahe_tasks.fingerprint import fingerprint
from bahe_tasks.landing import landed_days, landing_fingerprint
from bahe_tasks.schemas import SOURCES
from benchmarks.kit.document import Document
from benchmarks.kit.in_memory_log import InMemoryLog, read_log
from benchmarks.kit.judged_days import JudgedDays, Size, judged_days, oracle_figures, read_judged
from benchmarks.kit.label_times import day_of
from benchmarks.kit.settings import AsJson, Settings, config_with
from benchmarks.model_matrix import MODEL, TRAINING, save_checkpoint
from benchmarks.peers.catalogue import PEERS, TREES, Material
from benchmarks.peers.means import sums_before
from benchmarks.peers.point_in_time import numbers_of
from benchmarks.peers.progressive import Scores, cached, days_of, progressive, progressive_bahe

OURS = "bahe"
COLD_BELOW = 10
"""Earlier impressions of a user or item."""
SMALL = Size(days=4, users=80)


@dataclass(frozen=True)
class Comparison:
    """A log, what is judged of it, and what scores it."""

    log: InMemoryLog
    material: Material
    embeddings: np.ndarray  # (M, H) float16 of the shallow layers
    config: Config
    judged: np.ndarray  # (R,) bool
    cache: Path
    """Of these files, days, numbers and sentence embeddings alone."""

    def ours(self, seed: int) -> Scores:
        """Return the progressive scores of BAHE as `config` has it."""
        compute = partial(progressive_bahe, self.log, self.embeddings, self.config, seed=seed)
        settings = fingerprint(model=self.config.model, training=self.config.training, encoder=self.config.encoder)
        return cached(self.cache / f"{OURS}-{settings[:16]}-{seed}.npz", compute)

    def peer(self, name: str, seed: int) -> Scores:
        """Return the progressive scores of a peer; its CPU seconds include those of the peers it reads."""
        entry = PEERS[name]

        def compute() -> Scores:
            read = {other: self.peer(other, seed) for other in entry.reads}
            peer = entry.build(self.material, seed, {other: scores.probabilities for other, scores in read.items()})
            own = progressive(peer, days_of(self.log), num_rows=len(self.log.rows))
            return Scores(own.probabilities, own.cpu_s + sum(scores.cpu_s for scores in read.values()))

        return cached(self.cache / f"{name}-{seed if entry.seeded else 0}.npz", compute)

    @property
    def cold(self) -> np.ndarray:
        """Judged rows whose user or item was seen fewer than `COLD_BELOW` times before, (R,) bool."""
        rows = self.log.rows
        seen = [sums_before(ids, rows.labels, rows.shown_at).counts for ids in (rows.user_ids, rows.item_ids)]
        return self.judged & (np.minimum(*seen) < COLD_BELOW)

    def row(self, name: str, runs: list[Scores], effort: str) -> dict[str, Any]:
        """Return what a model reached on the judged rows."""
        rows, judged = self.log.rows, self.judged
        labels, users = rows.labels[judged].astype(np.float64), rows.user_ids[judged]
        days = day_of(rows.shown_at[judged])
        of_seeds = [evaluate(labels, run.probabilities[judged], users) for run in runs]
        of_days = [
            auc(labels[days == day], run.probabilities[judged][days == day]) for run in runs for day in np.unique(days)
        ]
        return {
            "model": name,
            "auc": float(np.mean([found["auc"] for found in of_seeds])),
            "auc_of_mean": auc(labels, mean_of(runs)[judged]),
            "auc_of_days": float(np.nanmean(of_days)),
            "gauc": float(np.mean([found["gauc"] for found in of_seeds])),
            "logloss": float(np.mean([found["logloss"] for found in of_seeds])),
            "seeds": len(runs),
            "cpu_s": float(np.mean([run.cpu_s for run in runs])),
            "effort": effort,
        }

    def minus(self, a: np.ndarray, b: np.ndarray, rows: np.ndarray, *, drawn: Literal["users", "days"]) -> Interval:
        """Return AUC(a) - AUC(b) on the rows (R,) bool with its 95 % interval.

        Rows of a day share its weather, campaigns and outages, those of a user its taste: either may be the unit drawn.
        """
        whole = self.log.rows
        labels, units = whole.labels[rows].astype(np.float64), whole.user_ids[rows]
        if drawn == "days":
            units = day_of(whole.shown_at[rows])
        return paired_auc_difference_interval(labels, a[rows], b[rows], units, seed=0)


def mean_of(runs: list[Scores]) -> np.ndarray:
    """Return the mean probability over seeds, (R,)."""
    return np.mean([run.probabilities for run in runs], axis=0)


def compare(comparison: Comparison, names: list[str], *, seeds: int) -> Document:
    """Run the named models and return what each reached; figures need `bahe` among them."""
    document = Document("quality")
    document.figures |= {"rows": float(comparison.judged.sum()), "cold_rows": float(comparison.cold.sum())}
    means = {}
    for name in names:
        entry = PEERS.get(name)
        run_seeds = range(1, (seeds if entry is None or entry.seeded else 1) + 1)
        runs = [comparison.ours(seed) if entry is None else comparison.peer(name, seed) for seed in run_seeds]
        means[name] = mean_of(runs)
        if not np.isfinite(means[name][comparison.judged]).all():
            raise ValueError(f"{name} gave no score to some of the judged rows")
        document.rows.append(comparison.row(name, runs, "default settings" if entry is None else entry.effort))
        print("{model}: AUC {auc:.4f}, {cpu_s:.0f} s".format(**document.rows[-1]), file=sys.stderr)
    if OURS not in means:
        return document
    document.figures["auc"] = next(row["auc"] for row in document.rows if row["model"] == OURS)
    peers = [row for row in document.rows if row["model"] != OURS]
    if not peers:
        return document
    for row in peers:
        other = means[row["model"]]
        by_user, by_day = (comparison.minus(means[OURS], other, comparison.judged, drawn=d) for d in ("users", "days"))
        row |= {"bahe_minus": by_user.estimate, "low": by_user.low, "high": by_user.high}
        row |= {"low_by_day": by_day.low, "high_by_day": by_day.high}
    best = max(peers, key=lambda row: row["auc_of_mean"])
    document.figures |= {"auc_minus_best_peer": best["bahe_minus"], "auc_minus_best_peer_low": best["low"]}
    if TREES in means:
        cold = comparison.minus(means[OURS], means[TREES], comparison.cold, drawn="users")
        document.figures |= {"cold_auc_minus_trees": cold.estimate, "cold_auc_minus_trees_low": cold.low}
    return document


def prepare(days: JudgedDays, config: Config, *, cache: Path) -> Comparison:
    """Read the days and encode their texts, by the shallow layers and by the whole LLM."""
    log, judged = read_judged(days, config)
    folder = checkpoint_dir(config.encoder.checkpoint)
    numbers, _ = numbers_of(log)
    return Comparison(
        log=log,
        material=Material.of(
            log,
            numbers=numbers,
            sentences=encode_by_whole_llm(log.texts, checkpoint_dir=folder, encoder=config.encoder),
        ),
        embeddings=log.encode(folder, config.encoder),
        config=config,
        judged=judged,
        cache=cache
        / fingerprint(
            files=files_of(days.landing),
            days=[days.first, days.last],
            read=[config.numbers, config.landing, config.sequences],
            sentences=replace(config.encoder, num_shallow_layers=0),  # wherever it is cut
        )[:16],
    )


def files_of(landing: Path) -> dict[str, str]:
    """Return source and day → fingerprint of the landed files."""
    days = [(source, day) for source in SOURCES for day in landed_days(landing, source)]
    return {f"{source}/{day}": landing_fingerprint(landing, source, day) for source, day in days}


def tiny(scratch: Path, landing: Path) -> Config:
    """Return the configuration of a tiny random LLM that knows the words of the log."""
    folder = scratch / "bert"
    save_checkpoint("bert", read_log(landing).texts, folder)
    encoder = EncoderConfig(checkpoint=str(folder), num_shallow_layers=1, device="cpu")
    return Config(home=scratch, encoder=encoder, model=MODEL, training=TRAINING)


def main(
    landing: Annotated[Path | None, typer.Argument(help="Landing folder; a synthetic log without.")] = None,
    first: Annotated[datetime, typer.Option(help="First day trained on.")] = datetime(2013, 2, 28),
    report_from: Annotated[datetime, typer.Option(help="First day judged.")] = datetime(2013, 10, 1),
    last: Annotated[datetime, typer.Option(help="Last day judged.")] = datetime(2013, 11, 6),
    seeds: Annotated[int, typer.Option(min=1, help="Models of each kind that a seed changes.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Names of models; all without.")] = None,
    settings: Settings = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps progressive scores.")] = None,
    as_json: AsJson = False,
    small: Annotated[
        bool, typer.Option(help="A tiny random LLM, few days and users of the synthetic log, one seed.")
    ] = False,
) -> None:
    """Run BAHE and its peers over the same days and compare them."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    names = [OURS, *PEERS] if only is None else only
    unknown = set(names) - {OURS, *PEERS}
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: not among {', '.join([OURS, *PEERS])}")
    with tempfile.TemporaryDirectory(prefix="bahe-quality-") as temporary:
        scratch = Path(temporary)
        config = config_with(settings, home=scratch, small=small)
        size = SMALL if small else None
        days = judged_days(landing, first=first, report_from=report_from, last=last, small=size, scratch=scratch)
        if small:
            config, seeds = tiny(scratch, days.landing), 1
        comparison = prepare(days, config, cache=cache or scratch / "cache")
        document = compare(comparison, names, seeds=seeds)
        if landing is None and "auc" in document.figures:
            document.figures |= oracle_figures(days, document.figures["auc"])
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    torch.set_num_threads(1)  # of this process, not of one that calls `main`
    app()
