"""What several labels and outcomes weigh in training, and what of the model they move."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import CPU, TRAINING

from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.train import train
from bahe_tasks.core.training_step import UnknownLabelError


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_several_labels_are_learned_together(weighting, tiny_split, tiny_spec, tiny_rows, embeddings):
    rows = dataclasses.replace(tiny_rows, extra_labels={"paid": np.float32([1, 0, np.nan] * 3)})
    model = new_model(tiny_spec.grown(extra_labels=["paid"]), tiny_split().deep, seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = dataclasses.replace(TRAINING, label_weighting=weighting, label_weights={"paid": 0.5})
    train(model, rows, embeddings, training=training, seed=1, device=CPU)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert {"head.outputs.label:label.weight", "head.outputs.label:paid.weight"} <= moved
    assert ("log_variances.label:paid" in moved) == (weighting == "uncertainty")


def test_outcomes_are_learnt_beside_the_click_at_their_weight(tiny_split, tiny_spec, tiny_rows, embeddings):
    rows = dataclasses.replace(tiny_rows, outcome_values=np.array([1.0, 2.0, np.nan] * 3))
    spec = tiny_spec.grown(outcome_thresholds=(2.0,))
    first_losses = []
    for weight in (0.0, 0.5, 1.0):
        model = new_model(spec, tiny_split().deep, seed=3)
        before = model.head.outputs["label:outcome>=2%2E0"].weight.clone()
        training = dataclasses.replace(TRAINING, outcome_weight=weight, batch_size=len(rows))
        first_losses.append(train(model, rows, embeddings, training=training, seed=1, device=CPU).losses[0])
        assert torch.equal(before, model.head.outputs["label:outcome>=2%2E0"].weight) == (weight == 0)
    assert first_losses[2] - first_losses[0] == pytest.approx(2 * (first_losses[1] - first_losses[0]), rel=1e-5)
    assert first_losses[1] > first_losses[0]


def test_a_row_with_an_outcome_weighs_as_much_as_a_click_however_few_have_one(
    tiny_split, tiny_spec, tiny_rows, embeddings
):
    spec = tiny_spec.grown(outcome_thresholds=(2.0,))
    training = dataclasses.replace(TRAINING, outcome_weight=1.0, batch_size=len(tiny_rows))

    def first_loss(values):
        rows = dataclasses.replace(tiny_rows, outcome_values=values)
        return train(
            new_model(spec, tiny_split().deep, seed=3), rows, embeddings, training=training, seed=1, device=CPU
        ).losses[0]

    count = len(tiny_rows)
    none, one, all_rows = (
        first_loss(np.where(np.arange(count) < rows_with_one, 2.0, np.nan)) for rows_with_one in (0, 1, count)
    )
    assert one - none == pytest.approx(
        (all_rows - none) / count, rel=1e-4
    )  # the head starts at zero: all rows are alike


@pytest.mark.parametrize("extra_labels", [(), ("paid",)])
def test_outcomes_keep_their_weight_where_other_labels_learn_theirs(
    extra_labels, tiny_split, tiny_spec, tiny_rows, embeddings
):
    rows = dataclasses.replace(
        tiny_rows,
        outcome_values=np.array([1.0, 2.0, np.nan] * 3),
        extra_labels={"paid": np.float32([1, 0, np.nan] * 3)},
    )
    model = new_model(tiny_spec.grown(extra_labels=extra_labels, outcome_thresholds=(2.0,)), tiny_split().deep, seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = dataclasses.replace(TRAINING, label_weighting="uncertainty", outcome_weight=0.5)
    train(model, rows, embeddings, training=training, seed=1, device=CPU)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert "head.outputs.label:outcome>=2%2E0.weight" in moved
    learned = {"log_variances.label:label", "log_variances.label:paid"} if extra_labels else set()
    assert {name for name in moved if name.startswith("log_variances.")} == learned


def test_a_weight_of_a_label_that_is_not_there_is_refused(fresh, tiny_rows, embeddings):
    training = dataclasses.replace(TRAINING, label_weights={"padi": 5.0})
    with pytest.raises(UnknownLabelError, match="padi; labels in force are label"):
        train(fresh(), tiny_rows, embeddings, training=training, seed=1, device=CPU)


def test_the_weight_of_the_click_scales_its_loss(fresh, tiny_rows, embeddings):
    once, twice = (
        train(
            fresh(),
            tiny_rows,
            embeddings,
            training=dataclasses.replace(TRAINING, label_weights={"label": weight}),
            seed=1,
            device=CPU,
        ).losses[0]
        for weight in (1.0, 2.0)
    )
    assert twice == pytest.approx(2 * once)
