"""Step sizes over the lineage: a warm-up and a decay, both counted in steps from the lineage's first one."""

from __future__ import annotations

from bahe_tasks.config import TrainingConfig


def learning_rate_share(training: TrainingConfig, *, step: int) -> float:
    """Return what share of the configured step sizes holds at a step, 0 to 1; `step` counts from 0 over the whole lineage.

    Warm-up is linear; decay goes with the root of the steps, to a half after three times `decay_steps`, and down to
    `min_learning_rate_share`.
    """
    warmup = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if not training.decay_steps:
        return warmup
    return warmup * max(training.min_learning_rate_share, (1 + step / training.decay_steps) ** -0.5)
