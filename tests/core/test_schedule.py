import pytest

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.schedule import learning_rate_share


def shares(training, points):
    return [learning_rate_share(training, step=step) for step in points]


def test_without_warm_up_and_decay_step_sizes_are_what_they_are():
    assert shares(TrainingConfig(decay_steps=0), [0, 10_000]) == [1.0, 1.0]


def test_warm_up_counts_steps_over_the_lineage():
    assert shares(TrainingConfig(warmup_steps=4, decay_steps=0), [0, 1, 3, 4]) == [0.25, 0.5, 1.0, 1.0]


def test_decay_goes_with_the_root_of_the_steps_down_to_its_floor():
    training = TrainingConfig(decay_steps=10, min_learning_rate_share=0.2)
    assert shares(training, [0, 30, 150, 10_000]) == pytest.approx([1.0, 0.5, 0.25, 0.2])
