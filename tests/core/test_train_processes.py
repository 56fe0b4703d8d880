"""Two processes on the CPU give the model of one, within rounding."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.ranks import Ranks
from bahe_tasks.core.train import train
from bahe_tasks.core.train_processes import process_count, train_in_processes
from bahe_tasks.core.training_step import UnknownLabelError, default_positions_a_pass, passes

CPU = torch.device("cpu")
TRAINING = TrainingConfig(
    batch_size=4, head_learning_rate=0.01, deep_learning_rate=1e-3, num_threads=1, keep_optimizer_state=True,
    label_weighting="uncertainty",
)  # fmt: skip


@pytest.fixture
def fresh(tiny_split, tiny_spec, without_dropout):
    """A model of two labels, without dropout: processes drop out other units than one alone."""
    spec = tiny_spec.grown(extra_labels=["paid"])
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, dropout=0.0))

    return lambda: without_dropout(new_model(spec, tiny_split().deep, seed=3))


@pytest.fixture
def rows(tiny_rows):
    """Nine rows in batches of four: the last batch has fewer rows than there are processes, and no history.

    So no process has a gradient of what histories alone reach, and none may move it.
    """
    histories = {}
    for name, history in tiny_rows.histories.items():
        ends = history.ends.copy()
        ends[-1] = history.starts[-1]
        histories[name] = dataclasses.replace(history, ends=ends)
    return dataclasses.replace(tiny_rows, histories=histories, extra_labels={"paid": np.float32([1, 0, np.nan] * 3)})


def test_embeddings_and_histories_mapped_from_files_train_the_same_bits(fresh, rows, embeddings, tmp_path):
    def mapped(array, name):
        array.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, array.dtype, mode="r", shape=array.shape)

    in_files = {
        name: dataclasses.replace(
            history,
            behavior_rows=mapped(history.behavior_rows, f"{name}-rows"),
            occurred_at=mapped(history.occurred_at, f"{name}-times"),
        )
        for name, history in rows.histories.items()
    }
    in_memory, from_files = fresh(), fresh()
    train(in_memory, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    rows = dataclasses.replace(rows, histories=in_files)
    train(from_files, rows, mapped(embeddings, "vectors"), training=TRAINING, seed=1, device=CPU)
    for name, tensor in in_memory.state_dict().items():
        assert torch.equal(from_files.state_dict()[name], tensor), name


def test_two_processes_give_the_model_of_one(fresh, rows, embeddings):
    one, two = fresh(), fresh()
    alone = train(one, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    together = train_in_processes(
        two, rows, embeddings, num_processes=2, training=TRAINING, seed=1, device=CPU, optimizer_state=None
    )
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
    assert together.rows == alone.rows
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            two.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name, tensor in alone.optimizer_state.items():
        torch.testing.assert_close(together.optimizer_state[name], tensor, rtol=1e-3, atol=1e-4)


def test_an_error_in_a_process_is_raised_here(fresh, rows, embeddings):
    with pytest.raises(UnknownLabelError, match="label_weights names nothing"):
        train_in_processes(
            fresh(), rows, embeddings, num_processes=2, training=dataclasses.replace(TRAINING, label_weights={"nothing": 1.0}), seed=1, device=CPU
        )  # fmt: skip


def test_every_row_of_a_batch_has_one_process():
    index = np.array([7, 3, 9])
    for size in (1, 2, 3, 5):
        parts = [Ranks(rank, size).part(index).tolist() for rank in range(size)]
        assert [row for part in parts for row in part] == index.tolist()


def test_a_pass_on_a_cpu_keeps_the_widest_tensor_below_20_mb_and_on_a_gpu_holds_all():
    positions = default_positions_a_pass(384, CPU)
    assert 19e6 < positions * 4 * 384 * 4 <= 20e6  # float32 numbers of an MLP four times as wide
    assert default_positions_a_pass(384, torch.device("cuda")) == 0


@pytest.mark.parametrize("budget", [{"rows_a_pass": 3}, {"positions_a_pass": 9}, {"positions_a_pass": 1}])
def test_the_passes_of_a_batch_add_up(budget, fresh, rows, embeddings, monkeypatch):
    """Gradients are the same within rounding. Where one is next to nothing Adam's step is made of its rounding, which differs from
    processor to processor: so models are held to a tenth of the longest step alone."""
    taken: list[dict[str, torch.Tensor]] = []
    clip = Optimizers.clip

    def seen(optimizers, max_norm):
        taken[-1] = taken[-1] or {
            n: p.grad.to_dense().clone() for n, p in model.named_parameters() if p.grad is not None
        }
        return clip(optimizers, max_norm)

    monkeypatch.setattr(Optimizers, "clip", seen)
    models, curves = [], []
    for changes in ({}, budget):
        model = fresh()
        taken.append({})
        models.append(model)
        training = dataclasses.replace(TRAINING, **changes)
        curves.append(train(model, rows, embeddings, training=training, seed=1, device=CPU))
    torch.testing.assert_close(taken[1], taken[0], rtol=1e-4, atol=1e-6)
    assert len(taken[0]) > 10
    assert curves[1].losses == pytest.approx(curves[0].losses, rel=1e-4)
    step = TRAINING.head_learning_rate
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-3, atol=step / 10)


def test_a_device_out_of_memory_is_given_half_the_rows_and_says_so_once(fresh, rows, embeddings, monkeypatch, caplog):
    model, expected = fresh(), fresh()
    forward, seen = model.forward, []

    def limited(batch):
        seen.append(len(batch.item_of))
        if len(batch.item_of) > 2:
            raise torch.OutOfMemoryError("no memory is left on the device")
        return forward(batch)

    monkeypatch.setattr(model, "forward", limited)
    train(model, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert seen == [4, 2, 2, 2, 2, 1]
    [told] = [message for message in caplog.messages if "out of memory" in message]
    assert "going on with 2 impressions a pass" in told
    train(expected, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_device_that_holds_one_row_is_given_half_until_it_fits_and_says_so_once(
    fresh, rows, embeddings, monkeypatch, caplog
):
    model = fresh()
    forward, seen = model.forward, []

    def limited(batch):
        seen.append(len(batch.item_of))
        if len(batch.item_of) > 1:
            raise torch.OutOfMemoryError("no memory is left on the device")
        return forward(batch)

    monkeypatch.setattr(model, "forward", limited)
    halved = train(model, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert seen == [4, 2, *[1] * 9]
    [told] = [message for message in caplog.messages if "out of memory" in message]
    assert "going on with 2 impressions a pass or fewer. Set training.rows_a_pass lower" in told
    one_a_pass = dataclasses.replace(TRAINING, rows_a_pass=1)
    assert halved.losses == train(fresh(), rows, embeddings, training=one_a_pass, seed=1, device=CPU).losses


def test_a_batch_that_finds_no_memory_ahead_is_prepared_again_in_its_turn(fresh, rows, embeddings, monkeypatch):
    import bahe_tasks.core.training_step as module

    collate, failed = module.collate, []

    def fails_ahead(*given, **named):
        if threading.current_thread() is not threading.main_thread() and len(failed) < 2:
            failed.append(given[2])
            raise torch.OutOfMemoryError("no memory is left on the device")
        return collate(*given, **named)

    expected, model = fresh(), fresh()
    train(expected, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    monkeypatch.setattr(module, "collate", fails_ahead)
    train(model, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert len(failed) == 2
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())


def test_passes_hold_at_most_so_many_rows_and_behaviors_and_count_a_user_state_once():
    def cut(most_rows, most_positions):
        states, positions = np.array([0, 0, 1, 2, 2, 3]), np.array([5, 5, 3, 9, 9, 0])
        found = passes(
            np.arange(6), states=states, positions=positions, most_rows=most_rows, most_positions=most_positions
        )
        return [part.tolist() for part in found]

    assert cut(6, 0) == [[0, 1, 2, 3, 4, 5]]
    assert cut(4, 0) == [[0, 1, 2, 3], [4, 5]]
    assert cut(6, 8) == [[0, 1, 2], [3, 4, 5]]  # state 2 has more than fits, and a pass of its own
    assert cut(6, 1) == [[0, 1], [2], [3, 4, 5]]
    assert cut(1, 8) == [[row] for row in range(6)]
    assert passes(np.arange(0), states=np.zeros(0), positions=np.zeros(0), most_rows=2, most_positions=2) == []


def test_a_pass_tried_again_drops_out_the_same_units(tiny_split, tiny_spec, rows, embeddings, monkeypatch, caplog):
    smaller, tried_again = (new_model(tiny_spec, tiny_split().deep, seed=3) for _ in range(2))
    forward = tried_again.forward

    def limited(batch):
        logits = forward(batch)
        if len(batch.item_of) > 2:
            raise torch.OutOfMemoryError("no memory is left on the device")
        return logits

    monkeypatch.setattr(tried_again, "forward", limited)
    again = train(tried_again, rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert "2 impressions a pass" in caplog.text
    once = train(smaller, rows, embeddings, training=dataclasses.replace(TRAINING, rows_a_pass=2), seed=1, device=CPU)
    assert again.losses == once.losses


def test_how_many_processes_train():
    assert process_count(TrainingConfig(), CPU) == 1
    assert process_count(TrainingConfig(num_processes=3), CPU) == 3
    assert process_count(TrainingConfig(num_processes=0), CPU) == 1
