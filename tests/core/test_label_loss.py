import math

import pytest
import torch

from bahe_tasks.core.label_loss import label_loss

NAN = float("nan")
LOGITS = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
LABELS = torch.tensor([[1.0, NAN], [0.0, 1.0]])
FIRST = (math.log(2) + math.log(1 + math.e**2)) / 2  # -log sigmoid(0) and -log(1 - sigmoid(2))
SECOND = math.log(1 + math.e)  # -log sigmoid(-1); the other row has no such label


def whole(logits, labels, *, weights, log_variances):
    counts = (~labels.isnan()).sum(0)
    return label_loss(logits, labels, counts=counts, part=1.0, weights=weights, log_variances=log_variances)


def test_the_losses_of_the_parts_of_a_batch_add_up():
    counts, s = torch.tensor([2, 1]), torch.tensor([0.4, -1.0])
    for log_variances in (None, s):
        parts = [
            label_loss(
                LOGITS[r : r + 1],
                LABELS[r : r + 1],
                counts=counts,
                part=0.5,
                weights=torch.tensor([1.0, 0.5]),
                log_variances=log_variances,
            )
            for r in range(2)
        ]
        together = whole(LOGITS, LABELS, weights=torch.tensor([1.0, 0.5]), log_variances=log_variances)
        assert sum(parts).item() == pytest.approx(together.item())


def test_fixed_weights_add_up_the_means_over_the_rows_that_have_the_label():
    loss = whole(LOGITS, LABELS, weights=torch.tensor([1.0, 0.5]), log_variances=None)
    assert loss.item() == pytest.approx(FIRST + SECOND / 2)


def test_uncertainty_is_the_formula_of_kendall_gal_and_cipolla():
    s = torch.tensor([0.4, -1.0])
    loss = whole(LOGITS, LABELS, weights=torch.ones(2), log_variances=s)
    assert loss.item() == pytest.approx(math.exp(-0.4) * FIRST + 0.2 + math.e * SECOND - 0.5, rel=1e-6)


def test_a_label_absent_from_the_batch_moves_nothing():
    labels = torch.tensor([[1.0, NAN], [0.0, NAN]])
    logits = LOGITS.clone().requires_grad_()
    s = torch.zeros(2, requires_grad=True)
    loss = whole(logits, labels, weights=torch.ones(2), log_variances=s)
    loss.backward()
    assert loss.item() == pytest.approx(FIRST)
    assert s.grad[1] == 0
    assert not logits.grad[:, 1].any()
    assert torch.isfinite(logits.grad).all()
