"""Step sizes across days: a warm-up counted in steps and a decay counted in days, both from the lineage's first one."""

from __future__ import annotations

from bahe_tasks.config import TrainingConfig


def learning_rate_share(training: TrainingConfig, *, step: int, day: int) -> float:
    """Return what share of the configured step sizes holds at a step, 0 to 1.

    `step` and `day` count from 0 over the whole lineage. Warm-up is linear, decay halves every `decay_half_life_days`,
    down to `min_learning_rate_share`.
    """
    warmup = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if not training.decay_half_life_days:
        return warmup
    return warmup * max(training.min_learning_rate_share, 0.5 ** (day / training.decay_half_life_days))
