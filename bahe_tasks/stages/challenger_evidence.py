"""The evidence of the gate: the challenger and its reference over the held-out rows of the last gate_days days.

Neither model was trained on one of these rows: a held-out row is trained on gate_days after it was judged by.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.intervals import calibration_interval, logloss_excess_interval, paired_auc_difference_interval
from bahe_tasks.core.metrics import auc, logloss
from bahe_tasks.core.score import NonFiniteScoreError
from bahe_tasks.stages.impression_rows import impression_rows
from bahe_tasks.stages.mapped_window import MappedWindow
from bahe_tasks.stages.score_rows import score_rows
from bahe_tasks.stages.window import Window
from bahe_tasks.stores.gate_frames import ChallengerMetrics


def challenger_metrics(
    window: Window, mapped: MappedWindow, config: Config, challenger: BaheCtrModel, reference: BaheCtrModel | None
) -> ChallengerMetrics:
    """Return the metrics the challenger is judged by; those that do not exist (no rows, one class, intervals of one user) are None.

    A model whose scores are not numbers gets no metrics but the count of its rows as non-finite.
    """
    rows = impression_rows(window, window.gate(config.gate.gate_days), mapped, sequences=config.sequences)
    labels = rows.labels.astype(np.float64)
    unjudged = ChallengerMetrics(
        rows=len(labels),
        users=len(set(rows.user_ids)),
        positives=int(labels.sum()),
        has_reference=reference is not None,
        non_finite_scores=0,
    )
    try:
        scores = score_rows(challenger, rows, mapped.index.vectors, config)
    except NonFiniteScoreError:
        return replace(unjudged, non_finite_scores=len(labels))
    if not 0 < labels.sum() < len(labels):
        return unjudged

    users = rows.user_ids
    samples, seed = config.gate.bootstrap_samples, config.training.seed
    ratio = calibration_interval(labels, scores, users, samples=samples, seed=seed, level=0.99)
    excess = logloss_excess_interval(labels, scores, users, samples=samples, seed=seed, level=0.95)
    loss = logloss(labels, scores)
    metrics = replace(
        unjudged,
        score_std=float(scores.std()) if np.ptp(scores) else 0.0,  # that of equal numbers may be rounding
        auc=auc(labels, scores),
        calibration=ratio.estimate,
        calibration_low=_known(ratio.low),
        calibration_high=_known(ratio.high),
        logloss=loss,
        base_rate_logloss=loss - excess.estimate,
        logloss_excess_low=_known(excess.low),
    )
    if reference is None:
        return metrics
    others = score_rows(reference, rows, mapped.index.vectors, config)
    difference = paired_auc_difference_interval(labels, scores, others, users, samples=samples, seed=seed, level=0.95)
    return replace(
        metrics,
        reference_auc=auc(labels, others),
        auc_difference=difference.estimate,
        auc_difference_low=_known(difference.low),
        auc_difference_high=_known(difference.high),
    )


def _known(end: float) -> float | None:
    """Return the end of an interval, None for NaN."""
    return None if np.isnan(end) else end
