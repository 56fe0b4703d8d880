"""Warm start, resume and early stop: what a fine-tune hands on, within a day and from day to day."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import CPU, TRAINING

from bahe_tasks.core.ctr_model import grow_model, new_model
from bahe_tasks.core.metrics import logloss
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.score import score
from bahe_tasks.core.train import early_stop_users, train
from benchmarks.kit.in_memory_log import part_of


def test_a_warm_start_with_optimiser_state_equals_continued_training(
    without_dropout, with_model, tiny_split, tiny_rows, embeddings, in_given_order
):
    """But for the level of a window, which is forgotten with it."""
    training = dataclasses.replace(TRAINING, epochs=1, batch_size=3, warmup_steps=5, level_learned=1.0)
    spec = with_model(dropout=0.0)
    whole, parent = (without_dropout(new_model(spec, tiny_split().deep, seed=3)) for _ in range(2))
    train(whole, tiny_rows, embeddings, training=training, seed=1, device=CPU)
    first, second = (part_of(tiny_rows, part) for part in (slice(0, 6), slice(6, None)))
    curve = train(parent, first, embeddings, training=training, seed=1, device=CPU)

    def warm_started(state):
        child = grow_model(copy.deepcopy(parent), parent.spec.trained(steps=curve.steps_kept), seed=5)
        train(child, second, embeddings, training=training, seed=2, device=CPU, optimizer_state=state)
        return child.state_dict()

    continued, anew = warm_started(curve.optimizer_state), warm_started(None)
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.state_dict().items())
    assert not torch.equal(whole.state_dict()["head.mlp.entry.bias"], anew["head.mlp.entry.bias"])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_after", [2, 6, 8, 12])
def test_a_killed_fine_tune_resumes_to_the_bits_of_an_undisturbed_one(
    tmp_path, fresh, tiny_rows, embeddings, killed_after
):
    """Two epochs of six rows, two a step; killed before the first saved state, at the end of an epoch, in and at the end."""
    training = dataclasses.replace(TRAINING, batch_size=2, checkpoint_steps=2, early_stop_share=0.2)
    undisturbed = fresh()
    curve = train(undisturbed, tiny_rows, embeddings, training=training, seed=1, device=CPU)

    def kill(done, total):
        if done >= killed_after:
            raise KilledError

    file = tmp_path / "work" / "state.safetensors"
    with pytest.raises(KilledError):
        train(fresh(), tiny_rows, embeddings, training=training, seed=1, device=CPU, state_file=file, progress=kill)
    steps = []
    resumed = fresh()
    again = train(
        resumed,
        tiny_rows,
        embeddings,
        training=training,
        seed=1,
        device=CPU,
        state_file=file,
        progress=lambda done, total: steps.append(done),
    )
    assert len(curve.losses) == 6
    assert len(steps) == {2: 6, 6: 4, 8: 2, 12: 0}[killed_after]  # a state is saved before the progress is told
    assert (again.losses, again.stop_losses) == (curve.losses, curve.stop_losses)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in undisturbed.state_dict().items())
    assert all(torch.equal(tensor, again.optimizer_state[name]) for name, tensor in curve.optimizer_state.items())


@pytest.mark.parametrize("damage", ["cut short", "another model", "another device"])
def test_a_saved_state_that_does_not_fit_is_passed_over_with_a_warning(
    damage, tmp_path, fresh, tiny_split, with_model, tiny_rows, embeddings, caplog
):
    training = dataclasses.replace(TRAINING, checkpoint_steps=1)
    file = tmp_path / "state.safetensors"
    other = new_model(with_model(cat_width=8), tiny_split().deep, seed=3) if damage == "another model" else fresh()
    train(other, tiny_rows, embeddings, training=training, seed=1, device=CPU, state_file=file)
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "another device":
        file.write_bytes(file.read_bytes().replace(b'"device":"cpu"', b'"device":"gpu"'))
    curve = train(fresh(), tiny_rows, embeddings, training=training, seed=1, device=CPU, state_file=file)
    assert "state.safetensors is passed over" in caplog.text
    assert curve.losses == train(fresh(), tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU).losses


def test_a_saved_state_holds_only_what_is_trained(tmp_path, tiny_split, with_model, tiny_rows, embeddings):
    model = new_model(with_model(deep_tuning="lora", lora_rank=2), tiny_split().deep, seed=3)
    training = dataclasses.replace(TRAINING, checkpoint_steps=1)
    file = tmp_path / "state.safetensors"
    train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU, state_file=file)
    deep = [name for name in load_file(file) if name.startswith("model/deep.")]
    assert deep
    assert all(".lora_" in name for name in deep)


def test_early_stop_keeps_the_best_epoch_and_never_trains_on_the_rows_that_decide(
    fresh, tiny_rows, tiny_spec, embeddings, batch_of
):
    training = dataclasses.replace(
        TRAINING, epochs=30, early_stop_share=0.4, head_learning_rate=0.05, vector_learning_rate=0.05, decay_steps=0
    )
    model = fresh()
    curve = train(model, tiny_rows, embeddings, training=training, seed=7, device=CPU)
    decides = early_stop_users(tiny_rows.user_ids, share=0.4, seed=7)
    stop_on = np.flatnonzero(decides)
    assert curve.rows == 9 - len(stop_on)
    assert 0 < len(stop_on) < len(tiny_rows)
    assert not set(tiny_rows.user_ids[~decides]) & set(tiny_rows.user_ids[decides])
    assert len(curve.stop_losses) < 30
    assert min(curve.stop_losses[:-1]) <= curve.stop_losses[-1]
    scores = score(model, tiny_rows, embeddings, index=stop_on, batch_size=9, device=CPU)
    assert logloss(tiny_rows.labels[stop_on], scores) == pytest.approx(min(curve.stop_losses), rel=1e-6)
    best_epoch = curve.stop_losses.index(min(curve.stop_losses))
    assert curve.steps_kept == (best_epoch + 1) * len(curve.losses) // len(curve.stop_losses)
    assert int(curve.optimizer_state["head.mlp.entry.bias/step"]) == curve.steps_kept
    stop_users = set(batch_of(tiny_rows, embeddings, tiny_spec, stop_on).cat[:, 0].tolist())
    assert not model.columns.tables["id:user"].weight[sorted(stop_users)].any()


def test_one_user_alone_is_trained_on_not_waited_for():
    assert not early_stop_users(np.array(["u", "u"], object), share=0.99, seed=1).any()


def test_the_model_that_scores_holds_the_average_of_the_heads_weights(fresh, tiny_rows, embeddings):
    """The average written out: over the last tenth of the steps at first, then each step counts 1 / average_steps."""
    training = dataclasses.replace(TRAINING, average_steps=2, batch_size=2, epochs=3, keep_optimizer_state=False)
    name, model, weights = "head.mlp.entry.bias", fresh(), []
    model.get_parameter(name).register_hook(lambda _: weights.append(model.get_parameter(name).detach().clone()))
    curve = train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
    weights.append(curve.optimizer_state[f"{name}/in_training"])
    average = weights[0]
    for number, after in enumerate(weights[1:]):
        share = max(1 / 2, 10 / (number + 11))
        average = (1 - share) * average + share * after
    torch.testing.assert_close(model.state_dict()[name], average)
    assert not torch.equal(average, weights[-1])
    assert not any(key.startswith("deep.") for key in curve.optimizer_state)


def test_the_average_of_a_weight_that_appears_later_reaches_back_over_a_tenth_of_its_own_steps(fresh):
    """Else what reads a new column would not show in scores for thousands of steps."""
    training, model = dataclasses.replace(TRAINING, average_steps=1000), fresh()
    old, new = "head.mlp.entry.bias", "head.outputs.label:label.bias"
    known = {f"{name}/in_training": p.detach() for name, p in model.named_parameters() if name != new}

    def shares_of_step(state, *, number):
        """Take a step from `state`; return the new state and how far the averages of old and new moved to the weights."""
        optimizers = Optimizers(model, training)
        optimizers.load(state)
        before = optimizers.state()
        for parameter in optimizers.dense:
            parameter.grad = torch.ones_like(parameter)
        optimizers.step(1.0, number=number)
        after = optimizers.state()
        moved = [after[f"{name}/average"] - before[f"{name}/average"] for name in (old, new)]
        whole = [model.get_parameter(name).detach() - before[f"{name}/average"] for name in (old, new)]
        return after, [float((part / all_).mean()) for part, all_ in zip(moved, whole, strict=True)]

    state, shares = shares_of_step(known, number=20_000)
    assert shares == pytest.approx([1 / 1000, 10 / 11], rel=1e-2)
    _, shares = shares_of_step(state, number=20_001)
    assert shares == pytest.approx([1 / 1000, 10 / 12], rel=1e-2)


def test_a_lineage_whose_average_is_switched_off_goes_on_from_the_weights_in_training(fresh):
    model, in_training = fresh(), torch.full((16,), 3.0)
    state = {"head.mlp.entry.bias/in_training": in_training}
    Optimizers(model, dataclasses.replace(TRAINING, average_steps=0)).load(state)
    assert torch.equal(model.get_parameter("head.mlp.entry.bias").detach(), in_training)


def test_without_an_average_the_last_weights_score(fresh, tiny_rows, embeddings):
    training = dataclasses.replace(TRAINING, average_steps=0)
    curve = train(fresh(), tiny_rows, embeddings, training=training, seed=1, device=CPU)
    assert not any(key.endswith(("/average", "/in_training")) for key in curve.optimizer_state)
