import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import CPU, TRAINING

from bahe_tasks.config import ModelConfig, TrainingConfig
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.metrics import auc
from bahe_tasks.core.muon import Muon
from bahe_tasks.core.score import score
from bahe_tasks.core.train import train
from bahe_tasks.core.training_step import TrainingDivergedError
from benchmarks.kit.in_memory_log import part_of


def test_same_seed_same_bits_and_another_seed_others(fresh, tiny_rows, embeddings):
    trained = []
    for seed in (1, 1, 2):
        model = fresh()
        curve = train(model, tiny_rows, embeddings, training=TRAINING, seed=seed, device=CPU)
        trained.append((model.state_dict(), curve))
    (one, curve_one), (same, curve_same), (other, _) = trained
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert curve_one.losses == curve_same.losses
    assert all(torch.equal(t, curve_same.optimizer_state[n]) for n, t in curve_one.optimizer_state.items())
    assert not torch.equal(one["head.mlp.entry.bias"], other["head.mlp.entry.bias"])  # dropout


def test_the_first_losses_are_those_of_a_plain_loop(
    without_dropout, fresh, tiny_rows, tiny_spec, embeddings, batch_of, in_given_order
):
    """Two labels, of which the click alone has a level. Dropout off, no table; maps outside the LLM are moved by Muon, which `test_muon` holds to torch's, all else by torch's AdamW."""
    spec = dataclasses.replace(
        tiny_spec,
        model=dataclasses.replace(tiny_spec.model, dropout=0.0, id_embeddings=False, text_id_width=0),
        cat_columns=(),
        extra_labels=("paid",),
    )
    rows = dataclasses.replace(tiny_rows, extra_labels={"paid": np.float32([1, 0, np.nan] * 3)})
    models = [without_dropout(new_model(spec, fresh().deep, seed=3)) for _ in range(2)]
    training = TrainingConfig(
        batch_size=4,
        deep_learning_rate=0.01,
        head_learning_rate=0.01,
        vector_learning_rate=0.01,
        decay_steps=0,
        max_gradient_norm=1e9,
        level_learned=0.1,
    )
    curve = train(models[0], rows, embeddings, training=training, seed=1, device=CPU)
    plain = models[1].train()
    maps = [m for name, m in plain.named_modules() if isinstance(m, torch.nn.Linear) and not name.startswith("deep.")]
    matrices = [m.weight for m in maps if min(m.weight.shape) > 1]
    others = [p for p in plain.parameters() if all(p is not matrix for matrix in matrices)]
    optimizers = [
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.01),
        Muon(matrices, lr=0.01, weight_decay=0.01),
    ]
    losses, level, information = [], 0.0, 16.0  # of the window: Newton's steps from a prior of 16 rows' information
    for index in ([0, 1, 2, 3], [4, 5, 6, 7], [8]):
        logits = plain(batch_of(rows, embeddings, spec, index))
        logit, y = logits[:, 0], torch.tensor(rows.labels[index])
        p = (logit + level).sigmoid()
        information += (p * (1 - p)).sum().item()
        level += (y - p).sum().item() / information
        loss = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
        paid = torch.tensor(rows.extra_labels["paid"][index])
        there = ~paid.isnan()
        paid, q = paid[there], logits[there, 1].sigmoid()
        loss = loss - (paid * q.log() + (1 - paid) * (1 - q).log()).sum() / max(len(paid), 1)
        plain.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert curve.losses == pytest.approx(losses, rel=1e-4)
    assert curve.rows == 9


def test_by_default_a_small_log_is_trained_on_in_batches_of_32(fresh, tiny_rows, embeddings):
    curves = [
        train(fresh(), tiny_rows, embeddings, training=TrainingConfig(batch_size=size), seed=1, device=CPU)
        for size in (0, 32)
    ]
    assert curves[0].losses == curves[1].losses
    assert len(curves[0].losses) == 1


def test_training_moves_every_part(fresh, tiny_rows, embeddings):
    before = {name: tensor.clone() for name, tensor in fresh().state_dict().items()}
    model = fresh()
    train(model, tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU)
    for part in (
        "deep.",
        "age_and_position.recency",
        "empty_history.",
        "unknown_item",
        "head.mlp.",
        "columns.tables.",
        "text_ids.",
        "head.outputs.",
    ):
        assert any(not torch.equal(before[n], t) for n, t in model.state_dict().items() if n.startswith(part)), part


def test_rows_of_ids_that_were_absent_do_not_move(fresh, tiny_rows, tiny_spec, embeddings, batch_of):
    model = fresh()
    with torch.no_grad():
        model.columns.tables["id:user"].weight[1:] = 1.0
    train(model, tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU)
    seen = np.unique(batch_of(tiny_rows, embeddings, tiny_spec).cat[:, 0].numpy())
    moved = torch.nonzero((model.columns.tables["id:user"].weight[1:] != 1.0).any(1)).squeeze(1) + 1
    assert set(moved.tolist()) == set(seen.tolist())


def test_zero_rows_train_nothing(fresh, embeddings, make_rows):
    rows = make_rows({"bills": [0], "visits": [0]}, seed=1)
    none = part_of(rows, slice(0, 0))
    model = fresh()
    curve = train(model, none, embeddings, training=TRAINING, seed=1, device=CPU)
    assert (curve.losses, curve.rows) == ((), 0)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh().state_dict().values(), strict=True)
    )


def test_a_loss_that_is_not_a_number_is_a_named_error(fresh, tiny_rows, embeddings):
    broken = embeddings.copy()
    broken[tiny_rows.title_rows] = np.nan
    with pytest.raises(TrainingDivergedError, match="step 0"):
        train(fresh(), tiny_rows, broken, training=TRAINING, seed=1, device=CPU)


def test_the_thread_count_holds_while_training_and_torch_is_put_back_as_it_was(fresh, tiny_rows, embeddings):
    model, during = fresh(), []
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    torch.set_num_threads(2)
    try:
        train(
            model,
            tiny_rows,
            embeddings,
            training=dataclasses.replace(TRAINING, num_threads=1),
            seed=1,
            device=CPU,
            progress=lambda done, total: during.append(
                (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
            ),
        )
        assert (set(during), torch.get_num_threads()) == ({(1, True)}, 2)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_progress_counts_rows_over_all_epochs(fresh, tiny_rows, embeddings):
    calls = []
    train(
        fresh(), tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU, progress=lambda *done: calls.append(done)
    )
    assert calls == [(4, 18), (8, 18), (9, 18), (13, 18), (17, 18), (18, 18)]


def test_a_click_that_follows_from_the_text_is_learned(tiny_split, tiny_spec, make_rows):
    """A user whose history is of one kind clicks items of that kind, 90 % against 10 %: the best AUC is about 0.9."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(2, 32))
    matrix = np.concatenate([kind + 0.5 * rng.normal(size=(50, 32)) for kind in kinds]).astype(np.float16)
    num_rows = 1200
    rows = make_rows({"bills": [3] * num_rows, "visits": [0] * num_rows}, seed=1, num_embeddings=100)
    user_kind, item_kind = rng.integers(2, size=num_rows), rng.integers(2, size=num_rows)
    clicked = rng.random(num_rows) < np.where(user_kind == item_kind, 0.9, 0.1)
    bills = dataclasses.replace(
        rows.histories["bills"], behavior_rows=(np.repeat(user_kind, 3) * 50 + rng.integers(50, size=3 * num_rows))
    )
    rows = dataclasses.replace(
        rows,
        histories={"bills": bills},
        title_rows=item_kind * 50 + rng.integers(50, size=num_rows),
        labels=clicked.astype(np.float32),
        as_of=rows.shown_at + 400 * 86400 * 1_000_000,
    )
    model_config = ModelConfig(hidden_widths=(32,), id_embeddings=False, recency_buckets=8)
    spec = dataclasses.replace(tiny_spec, features=("bills",), cat_columns=(), num_statistics={}, model=model_config)
    model = new_model(spec, tiny_split().deep, seed=3)
    training = TrainingConfig(epochs=3, batch_size=32, head_learning_rate=3e-3, deep_learning_rate=3e-4)
    learned_from = part_of(rows, slice(0, 800))
    train(model, learned_from, matrix, training=training, seed=1, device=CPU)
    held_out = part_of(rows, slice(800, None))
    assert auc(held_out.labels, score(model, held_out, matrix, batch_size=256, device=CPU)) > 0.8


def test_frozen_deep_layers_do_not_move_and_the_rest_does(tiny_split, with_model, tiny_rows, embeddings):
    model = new_model(with_model(deep_tuning="frozen"), tiny_split().deep, seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert not any(name.startswith("deep.") for name in moved)
    assert {"age_and_position.recency.weight", "head.mlp.entry.bias"} <= moved


def test_a_head_without_a_matrix_is_trained(tiny_split, with_model, tiny_rows, embeddings):
    narrow = with_model(head="mlp", hidden_widths=(1,), text_topics=0)
    model = new_model(narrow, tiny_split().deep, seed=3)
    before = model.head.outputs.click_bias.clone()
    train(model, tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert not torch.equal(model.head.outputs.click_bias, before)


def test_a_day_of_one_class_and_a_day_of_new_users_are_trained_on(tiny_split, tiny_spec, tiny_rows, embeddings):
    one_class = dataclasses.replace(tiny_rows, labels=np.ones(9, np.float32))
    all_new = dataclasses.replace(
        tiny_rows,
        user_ids=np.array([f"new{r}" for r in range(9)], object),
        histories={
            name: dataclasses.replace(history, ends=history.starts) for name, history in tiny_rows.histories.items()
        },
    )
    for rows in (one_class, all_new):
        model = new_model(tiny_spec, tiny_split().deep, seed=3, base_rates={"label": float(rows.labels.mean())})
        curve = train(model, rows, embeddings, training=TRAINING, seed=1, device=CPU)
        assert np.isfinite(curve.losses).all()
        assert np.isfinite(score(model, rows, embeddings, batch_size=9, device=CPU)).all()


def test_decay_over_the_lineage_makes_smaller_steps(fresh, tiny_rows, embeddings):
    training = dataclasses.replace(TRAINING, decay_steps=1, average_steps=0)
    moved = []
    for steps in (0, 1000):
        model = fresh()
        model.spec = dataclasses.replace(model.spec, trained_steps=steps)
        before = model.head.mlp.entry.bias.detach().clone()
        train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
        moved.append((model.head.mlp.entry.bias - before).abs().sum().item())
    assert moved[1] < moved[0] / 3


def test_frozen_deep_layers_drop_nothing_out(tiny_split, with_model, tiny_rows, embeddings):
    model = new_model(with_model(deep_tuning="frozen"), tiny_split().deep, seed=3)
    assert model.deep.one_query  # tried before modes are noted
    modes = []
    model.deep.register_forward_hook(lambda module, *_: modes.append((module.training, model.head.training)))
    train(model, tiny_rows, embeddings, training=TRAINING, seed=1, device=CPU)
    assert set(modes) == {(False, True)}


def test_bfloat16_products_train_nearly_the_same_and_leave_float32_weights(
    tiny_split, tiny_spec, tiny_rows, embeddings
):
    curves = {}
    for dtype in ("float32", "bfloat16"):
        model = new_model(tiny_spec, tiny_split().deep, seed=3)
        training = dataclasses.replace(TRAINING, compute_dtype=dtype)
        curves[dtype] = train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU).losses
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert curves["bfloat16"] == pytest.approx(curves["float32"], abs=0.05)
    assert curves["bfloat16"] != curves["float32"]


def test_a_fused_optimiser_takes_the_same_steps(tiny_split, tiny_spec, tiny_rows, embeddings):
    models = []
    for fused in (False, True):
        model = new_model(tiny_spec, tiny_split().deep, seed=3)
        training = dataclasses.replace(TRAINING, fused_optimizer=fused)
        train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
        models.append(model.state_dict())
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
