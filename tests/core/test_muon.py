"""Muon against torch's own, and what it does to a matrix against its singular value decomposition."""

import torch

from bahe_tasks.core.muon import Muon, orthogonal

GENERATOR = torch.Generator().manual_seed(7)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def test_directions_are_kept_and_learned_equally_fast():
    for shape in ((5, 5), (3, 8), (8, 3), (16, 64), (128, 75)):
        matrix = random(*shape)
        (found,) = orthogonal([matrix])
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        values = left.T @ found @ right.T
        assert values.diagonal().min() > 0.3  # of a square random matrix the smallest lie far below the largest
        assert values.diagonal().max() < 1.3
        torch.testing.assert_close(values, values.diagonal().diag(), atol=2e-3, rtol=0)


def test_the_scale_of_a_gradient_does_not_matter_and_zero_stays_zero():
    matrix = random(4, 9)
    as_it_is, tiny, zero = orthogonal([matrix, matrix * 1e-6, torch.zeros(4, 9)])
    torch.testing.assert_close(as_it_is, tiny)
    assert not zero.any()


def test_matrices_do_not_see_each_other():
    matrices = [random(4, 9), random(9, 4), random(4, 4), random(2, 6)]
    for matrix, beside in zip(matrices, orthogonal(matrices), strict=True):
        torch.testing.assert_close(orthogonal([matrix])[0], beside)


def test_steps_are_those_of_torch():
    """Which computes in bfloat16; without a gradient a matrix stays as it is."""
    shapes = ((16, 64), (64, 16), (32, 32), (8, 40))
    ours, torchs = ([torch.nn.Parameter(random(*shape)) for shape in shapes] for _ in range(2))
    for one, other in zip(ours, torchs, strict=True):
        other.data.copy_(one.data)
    before = [matrix.detach().clone() for matrix in ours]
    optimizers = [
        Muon(ours, lr=0.01, weight_decay=0.1),
        torch.optim.Muon(torchs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(5):
        for one, other in zip(ours[:-1], torchs[:-1], strict=True):
            one.grad = random(*one.shape)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, first in zip(ours[:-1], torchs[:-1], before[:-1], strict=True):
        moved, expected = one.detach() - first, other.detach() - first
        assert (moved - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(ours[-1], before[-1])


def test_a_matrix_rests_while_its_gradient_is_zero():
    """As that of a column which most batches lack: a momentum alone, however small, would make whole steps."""
    rare, always_there = (torch.nn.Parameter(random(4, 6)) for _ in range(2))
    optimizer = Muon([rare, always_there], lr=0.01, weight_decay=0.1)
    rare.grad, always_there.grad = random(4, 6), random(4, 6)
    optimizer.step()
    after, momentum = rare.detach().clone(), optimizer.state[rare]["momentum"].clone()
    other_after = always_there.detach().clone()
    rare.grad = torch.zeros(4, 6)
    optimizer.step()
    assert torch.equal(rare.detach(), after)
    assert torch.equal(optimizer.state[rare]["momentum"], momentum)
    assert not torch.equal(always_there.detach(), other_after)
