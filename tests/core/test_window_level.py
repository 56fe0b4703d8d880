"""The level of a training window: what is laid to it, and that a model does not learn it."""

import dataclasses

import numpy as np
import pytest
from tiny_training import CPU, TRAINING

from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.score import score
from bahe_tasks.core.train import train
from bahe_tasks.core.window_level import WindowLevel


def test_the_level_of_many_rows_is_how_far_their_clicks_lie_from_what_was_expected():
    level, clicks = WindowLevel(), 0.6
    for _ in range(50):
        p = 1 / (1 + np.exp(-level.log_odds))  # one half was expected
        level = level.after(100 * (clicks - p), 100 * p * (1 - p))
    assert level.log_odds == pytest.approx(np.log(0.6 / 0.4), abs=0.01)


@pytest.mark.parametrize(("usual", "today"), [(0.002, 0.05), (0.01, 0.3), (0.001, 0.5), (0.3, 0.01)])
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_the_level_of_large_batches_never_goes_beyond_their_clicks(usual, today, steps):
    expected, clicks = np.log(usual / (1 - usual)), np.log(today / (1 - today))
    level, reached = WindowLevel(), []
    for _ in range(steps):
        p = 1 / (1 + np.exp(-expected - level.log_odds))
        level = level.after(8192 * (today - p), 8192 * p * (1 - p))
        reached.append(level.log_odds / (clicks - expected))  # as a share of what there is
    assert reached == sorted(reached)
    assert 0 < reached[-1] < 1


def test_a_window_of_one_row_has_next_to_no_level():
    assert 0 < WindowLevel().after(0.5, 0.25).log_odds < 0.05


def test_the_bias_holds_a_share_of_the_level_at_the_end_of_each_epoch():
    by, level = WindowLevel(1.0, 50.0).hand_over(0.3)
    assert (by, level.log_odds) == pytest.approx((0.3, 0.7))
    by, level = level.after(25.0, 50.0).hand_over(0.3)  # 25 / (50 + 50) more: a level of 1.25
    assert (by, level.log_odds) == pytest.approx((0.3 * 1.25 - 0.3, 0.7 * 1.25))


def test_what_is_handed_over_reaches_the_weights_and_their_average(fresh):
    model = fresh()
    optimizers, bias = Optimizers(model, TRAINING), model.head.outputs.click_bias
    before = bias.item()
    optimizers.shift(bias, 0.25)
    assert bias.item() == pytest.approx(before + 0.25)
    state = optimizers.end(
        with_deep_layers=False
    )  # the model has the average then, the state what training goes on from
    assert TRAINING.average_steps
    assert bias.item() == pytest.approx(before + 0.25)
    name = next(name for name, parameter in model.named_parameters() if parameter is bias)
    assert state[f"{name}/in_training"].item() == pytest.approx(before + 0.25)


def test_a_day_of_many_clicks_teaches_a_model_less_of_its_level(fresh, make_rows, embeddings):
    rows = make_rows({"bills": [3] * 600, "visits": [2] * 600}, seed=1)
    rows = dataclasses.replace(rows, labels=(np.random.default_rng(2).random(600) < 0.8).astype(np.float32))

    def moved(learned):
        """Return how far a day moves the mean prediction, in log-odds."""
        training = dataclasses.replace(
            TRAINING, batch_size=16, epochs=1, average_steps=0, head_learning_rate=2e-3, level_learned=learned
        )
        means, model = [], fresh()
        for _ in range(2):
            mean = float(np.mean(score(model, rows, embeddings, batch_size=600, device=CPU)))
            means.append(np.log(mean / (1 - mean)))
            if len(means) == 1:
                train(model, rows, embeddings, training=training, seed=1, device=CPU)
        return means[1] - means[0]

    assert moved(1.0) > 0.8
    assert 0 < moved(0.1) < moved(1.0) / 2
    assert moved(0.5) > moved(0.1) + 0.3, "half of the level, which is 1.4"
