import pytest

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.schedule import learning_rate_share


def shares(training, points):
    return [learning_rate_share(training, step=step, day=day) for step, day in points]


def test_by_default_step_sizes_are_what_they_are():
    assert shares(TrainingConfig(), [(0, 0), (10_000, 365)]) == [1.0, 1.0]


def test_warm_up_counts_steps_over_the_lineage():
    assert shares(TrainingConfig(warmup_steps=4, decay_half_life_days=0), [(0, 0), (1, 0), (3, 2), (4, 2)]) == [
        0.25,
        0.5,
        1.0,
        1.0,
    ]


def test_decay_halves_over_days_down_to_its_floor():
    training = TrainingConfig(decay_half_life_days=10, min_learning_rate_share=0.2)
    assert shares(training, [(5, 0), (5, 10), (5, 20), (5, 400)]) == pytest.approx([1.0, 0.5, 0.25, 0.2])
