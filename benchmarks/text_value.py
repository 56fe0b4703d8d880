"""What text is worth to BAHE: the same rows with all of it, without each text feature, without titles, without any.

    python -m benchmarks.text_value [LANDING --first 2013-02-28 --report-from 2013-07-15 --last 2013-08-31] [--json] [--small]

Each variant is replayed on its own, every day scored before it is trained on. Without a text feature its histories are
empty; without titles every item is an unknown one (what was learned of the texts goes with them); without words the point-in-time numbers of title words, alone and with
the user, are absent; without any text all of these. Ids, columns and other numbers stay.

Rows: variant, segment, rows, `auc` of the variant, `worth` = AUC of everything - AUC of the variant on mean
probabilities over seeds with `low` and `high` of its 95 % interval over resamples of users, `cpu_s` a seed.
Segments: all judged rows; those whose user, or item, was seen fewer than ten times before, and those of either; histories
of fewer than ten behaviors in all, and of more. Figures: `worth_of_text` and `cold_worth_of_text`, each with `_low`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers.utils import logging

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config
from bahe_tasks.core.intervals import paired_auc_difference_interval
from bahe_tasks.core.metrics import auc
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks.kit.document import Document
from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.kit.judged_days import Size, judged_days, read_judged
from benchmarks.kit.settings import AsJson, Settings, config_with
from benchmarks.peers.means import sums_before
from benchmarks.peers.progressive import progressive_bahe
from benchmarks.quality import COLD_BELOW, tiny

SMALL = Size(days=3, users=25)
SHORT_BELOW = 10
"""Behaviors of a history, all text features together."""
ALL, NOTHING, COLD = "everything", "without any text", "new users or items"
Change = Callable[[ImpressionRows], ImpressionRows]


def without_feature(rows: ImpressionRows, feature: str) -> ImpressionRows:
    """Return the rows with empty histories of a text feature."""
    history = rows.histories[feature]
    return replace(rows, histories={**rows.histories, feature: replace(history, ends=history.starts)})


def without_titles(rows: ImpressionRows) -> ImpressionRows:
    """Return the rows with unknown items."""
    return replace(rows, title_rows=np.full(len(rows), -1, np.int64))


def without_words(rows: ImpressionRows) -> ImpressionRows:
    """Return the rows without the sums of title words, alone and with the user."""
    if rows.sums is None:
        return rows
    of_words = [name.startswith(("token_", "pair_")) for name in IMPRESSION_SUMS]
    return replace(rows, sums=np.where(of_words, np.nan, rows.sums[:]))


def variants(rows: ImpressionRows) -> dict[str, Change]:
    """Return what is taken away, by name; the first is nothing."""

    def nothing_left(rows: ImpressionRows) -> ImpressionRows:
        for feature in rows.histories:
            rows = without_feature(rows, feature)
        return without_words(without_titles(rows))

    return {
        ALL: lambda rows: rows,
        **{f"without {feature}": partial(without_feature, feature=feature) for feature in sorted(rows.histories)},
        "without titles": without_titles,
        "without words": without_words,
        NOTHING: nothing_left,
    }


def segments(rows: ImpressionRows, judged: np.ndarray) -> dict[str, np.ndarray]:
    """Return the judged rows of each segment, (R,) bool."""
    new_user, new_item = (
        judged & (sums_before(ids, rows.labels, rows.shown_at).counts < COLD_BELOW)
        for ids in (rows.user_ids, rows.item_ids)
    )
    lengths = sum((h.ends - h.starts for h in rows.histories.values()), np.zeros(len(rows), np.int64))
    return {
        "all": judged,
        "new users": new_user,
        "new items": new_item,
        COLD: new_user | new_item,
        f"histories below {SHORT_BELOW}": judged & (lengths < SHORT_BELOW),
        f"histories of {SHORT_BELOW} or more": judged & (lengths >= SHORT_BELOW),
    }


def study(log: InMemoryLog, judged: np.ndarray, embeddings: np.ndarray, config: Config, *, seeds: int) -> Document:
    """Replay every variant and return what it lacks."""
    document = Document("text_value")
    parts = segments(log.rows, judged)
    of_all = np.zeros(0)
    for name, change in variants(log.rows).items():
        changed = replace(log, rows=change(log.rows))
        runs = [progressive_bahe(changed, embeddings, config, seed=seed) for seed in range(1, seeds + 1)]
        scores = np.mean([run.probabilities for run in runs], axis=0)
        of_all = scores if name == ALL else of_all
        cpu_s = float(np.mean([run.cpu_s for run in runs]))
        for segment, rows in parts.items():
            labels, users = log.rows.labels[rows].astype(np.float64), log.rows.user_ids[rows]
            worth = paired_auc_difference_interval(labels, of_all[rows], scores[rows], users, seed=0)
            document.rows.append(
                {
                    "variant": name,
                    "segment": segment,
                    "rows": int(rows.sum()),
                    "auc": auc(labels, scores[rows]),
                    "worth": worth.estimate,
                    "low": worth.low,
                    "high": worth.high,
                    "cpu_s": cpu_s,
                }
            )
        print(f"{name}: AUC {auc(log.rows.labels[judged].astype(float), scores[judged]):.4f}", file=sys.stderr)
    for figure, segment in (("worth_of_text", "all"), ("cold_worth_of_text", COLD)):
        row = next(row for row in document.rows if (row["variant"], row["segment"]) == (NOTHING, segment))
        document.figures |= {figure: row["worth"], f"{figure}_low": row["low"]}
    return document


def main(
    landing: Annotated[Path | None, typer.Argument(help="Landing folder; a synthetic log without.")] = None,
    first: Annotated[datetime, typer.Option(help="First day trained on.")] = datetime(2013, 2, 28),
    report_from: Annotated[datetime, typer.Option(help="First day judged.")] = datetime(2013, 7, 15),
    last: Annotated[datetime, typer.Option(help="Last day judged.")] = datetime(2013, 8, 31),
    seeds: Annotated[int, typer.Option(min=1, help="Models of each variant.")] = 1,
    settings: Settings = None,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="A tiny random LLM, few days and users of the synthetic log.")] = False,
) -> None:
    """Take text away, kind by kind, and say what is lost."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="bahe-text-value-") as temporary:
        scratch = Path(temporary)
        config = config_with(settings, home=scratch, small=small)
        size = SMALL if small else None
        days = judged_days(landing, first=first, report_from=report_from, last=last, small=size, scratch=scratch)
        if small:
            config = tiny(scratch, days.landing)
        log, judged = read_judged(days, config)
        embeddings = log.encode(checkpoint_dir(config.encoder.checkpoint), config.encoder)
        document = study(log, judged, embeddings, config, seeds=seeds)
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    torch.set_num_threads(1)  # of this process, not of one that calls `main`
    app()
