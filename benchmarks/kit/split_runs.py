"""The replays of a split study: one for each variant and seed, several at a time, each kept in a file once it has ended.

Several processes share one GPU, which a replay of a small model does not fill, or the cores of a machine. A study that
was stopped goes on from the files.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from bahe_tasks.config import Config
from bahe_tasks.fingerprint import fingerprint
from benchmarks.kit.split_variants import SplitVariant, replay_variant
from benchmarks.kit.study_log import StudyLog

_SEED_STEP = 1000
"""Between the seeds of two replays; within one, every day has the next seed."""


@dataclass(frozen=True)
class Replayed:
    """What one seed of a variant predicted and cost."""

    scores: np.ndarray  # (R,)
    train_cpu_s: float
    score_cpu_s: float
    encode_cpu_s: float


def replays(
    variants: list[SplitVariant], study: StudyLog, config: Config, *, seeds: int, processes: int, kept: Path | None
) -> Iterator[tuple[SplitVariant, list[Replayed]]]:
    """Yield each variant with its replays with seeds 0, 1, …, in the order given, as soon as it is complete.

    `kept` is the folder for the files of ended replays; one of other impressions, settings or seed has another name, but not
    one of other texts or other code: then choose another folder.
    """
    if processes == 1:
        for variant in variants:
            yield variant, [_one(variant, study, config, seed, kept) for seed in range(seeds)]
        return
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(study, config, kept),
    ) as pool:
        running = [
            (variant, [pool.submit(_one_of_begun, variant, seed) for seed in range(seeds)]) for variant in variants
        ]
        try:
            for variant, of_seeds in running:
                yield variant, [one.result() for one in of_seeds]
        except BaseException:  # else what is queued would run first
            pool.shutdown(cancel_futures=True)
            raise


_begun: list[Any] = []


def _begin(*given: Any) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _begun[:] = given


def _one_of_begun(variant: SplitVariant, seed: int) -> Replayed:
    study, config, kept = _begun
    return _one(variant, study, config, seed, kept)


def _one(variant: SplitVariant, study: StudyLog, config: Config, seed: int, kept: Path | None) -> Replayed:
    file = kept / _name(variant, study, config, seed) if kept else None
    if file is not None and file.exists():
        with np.load(file) as found:
            return Replayed(found["scores"], *(float(found[n]) for n in ("train_cpu_s", "score_cpu_s", "encode_cpu_s")))
    run = replay_variant(variant, study, config, seed=_SEED_STEP * seed)
    predictions = run.predictions
    replayed = Replayed(predictions.scores, predictions.train_cpu_s, predictions.score_cpu_s, run.encode_cpu_s)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".writing.npz")
        np.savez(half, **vars(replayed))
        half.rename(file)
    return replayed


def _name(variant: SplitVariant, study: StudyLog, config: Config, seed: int) -> str:
    rows = [rows for _, rows in study.days]
    digest = fingerprint(
        impressions=[name for part in rows for name in part.impression_ids],
        behaviors=[int((h.ends - h.starts).sum()) for part in rows for h in part.histories.values()],
        config=asdict(replace(config, home=Path())),
    )
    return f"{variant.kind}-{variant.num_shallow_layers}-{variant.tuning}-seed{seed}-{digest[:12]}.npz"
