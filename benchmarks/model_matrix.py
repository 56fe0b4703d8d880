"""Every LLM family × CTR head × tuning mode, at tiny size with random weights, replayed on the synthetic log.

    python -m benchmarks.model_matrix [--json] [--small | --all-families]

A combination passes when the lower end of its 95 % interval of the AUC (by user) lies above one half; the days before
the last two warm it up. Random LLMs know no words: most of what is learned comes from ids and columns (text alone stays
within noise of one half at this size), so this tells that a combination trains, not which is best. `--small` tries each
family once, heads and tuning modes in turn. Figure: `combinations_passed`, share, target 1.0.

`peak_mb` is what the process grew by at most while the combination was replayed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Annotated, get_args, get_type_hints

import numpy as np
import torch
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from bahe_tasks.config import Config, EncoderConfig, ModelConfig, SequencesConfig, TrainingConfig
from bahe_tasks.core.intervals import metric_intervals
from bahe_tasks.sources.synthetic import synthesize
from benchmarks.kit.document import Document
from benchmarks.kit.in_memory_log import read_log
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.replay import Predictions, replay
from benchmarks.kit.settings import AsJson
from benchmarks.kit.tiny_llms import TINY_LLMS

NAMED_FAMILIES = (
    "bert", "roberta", "xlm-roberta", "modernbert", "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3",
    "gpt-neox",
)  # fmt: skip
HEADS = get_args(get_type_hints(ModelConfig)["head"])
TUNINGS = get_args(get_type_hints(ModelConfig)["deep_tuning"])
FIRST, LAST, JUDGED_FROM = date(2024, 1, 1), date(2024, 1, 4), date(2024, 1, 3)
USERS, EVENTS_PER_USER, IMPRESSIONS_PER_USER = 120, 5.0, 8.0
"""About 2,000 judged impressions of 120 users."""
TRAINING = TrainingConfig(deep_learning_rate=1e-3, head_learning_rate=3e-3, num_threads=1)
MODEL = ModelConfig(hidden_widths=(32,), hash_buckets=4096, dropout=0.0, field_width=8, attention_width=16)


def save_checkpoint(family: str, texts: list[str], folder: Path) -> None:
    """Save a tiny random LLM with a tokenizer of the texts' words."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<pad>", "<s>", "</s>", "<unk>"]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    TINY_LLMS[family](vocab_size=tokenizer.get_vocab_size(), noise=0.0).save_pretrained(folder)
    wrapped.save_pretrained(folder)


def judge(predictions: Predictions) -> tuple[float, float]:
    """Return AUC of the judged days and the lower end of its 95 % interval over resamples of users."""
    judged = predictions.days >= np.datetime64(JUDGED_FROM)
    labels, scores, users = predictions.labels[judged], predictions.scores[judged], predictions.users[judged]
    interval = metric_intervals(labels, scores, users, samples=500, seed=0, level=0.95)["auc"]
    return interval.estimate, interval.low


def combinations(*, small: bool, all_families: bool) -> list[tuple[str, str, str]]:
    """Return (family, head, tuning mode) of every combination to try."""
    families = tuple(TINY_LLMS) if all_families else NAMED_FAMILIES
    if not small:
        return list(product(families, HEADS, TUNINGS))
    return [(family, HEADS[n % len(HEADS)], TUNINGS[n % len(TUNINGS)]) for n, family in enumerate(families)]


def run(chosen: list[tuple[str, str, str]]) -> Document:
    """Replay every combination and return what it gave."""
    document = Document("model_matrix")
    with tempfile.TemporaryDirectory(prefix="bahe-matrix-") as scratch:
        landing = Path(scratch) / "landing"
        synthesize(
            landing,
            days=(LAST - FIRST).days + 1,
            users=USERS,
            seed=1,
            first_day=FIRST,
            impressions_per_user=IMPRESSIONS_PER_USER,
            events_per_user=EVENTS_PER_USER,
            flaw_share=0.0,
        )
        log = read_log(landing, sequences=SequencesConfig(max_behaviors_per_sequence=8))
        days = log.days(FIRST, LAST)
        for family in dict.fromkeys(family for family, _, _ in chosen):
            folder = Path(scratch) / family
            save_checkpoint(family, log.texts, folder)
            encoder = EncoderConfig(checkpoint=str(folder), num_shallow_layers=1, device="cpu")
            embeddings = log.encode(folder, encoder)
            for _, head, tuning in [c for c in chosen if c[0] == family]:
                model = replace(MODEL, head=head, deep_tuning=tuning)  # type: ignore[arg-type]
                config = Config(home=Path(scratch), encoder=encoder, model=model, training=TRAINING)
                began = perf_counter()
                with PeakMemory() as memory:
                    predictions, _ = replay(days, embeddings, config, texts=log.texts, seed=1)
                seconds = perf_counter() - began
                found, low = judge(predictions)
                document.rows.append(
                    {
                        "family": family,
                        "head": head,
                        "tuning": tuning,
                        "auc": found,
                        "auc_low": low,
                        "passed": low > 0.5,
                        "seconds": seconds,
                        "peak_mb": memory.grown_mb,
                    }
                )
                print(f"{family} {head} {tuning}: AUC {found:.3f} (low {low:.3f}), {seconds:.1f} s", file=sys.stderr)
    document.figures["combinations"] = float(len(document.rows))
    document.figures["combinations_passed"] = float(np.mean([row["passed"] for row in document.rows]))
    return document


def main(
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="Each family once.")] = False,
    all_families: Annotated[bool, typer.Option(help="Also the families beyond those the project names.")] = False,
) -> None:
    """Try every family, head and tuning mode; exit 1 when a combination does not beat chance."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    document = run(combinations(small=small, all_families=all_families))
    document.show(as_json=as_json)
    if document.figures["combinations_passed"] < 1:
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)  # of this process, not of one that calls `main`
    typer.run(main)
