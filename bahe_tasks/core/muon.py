"""Muon for the head's weight matrices: each step moves a matrix by the orthogonal matrix nearest to its momentum.

A matrix of gradients is dominated by few directions; made orthogonal, all directions are learned equally fast, which is worth
most where each row is trained on once (docs/quality.md). Source: Jordan et al., "Muon: An optimizer for hidden layers in neural
networks", 2024; scale of a step as Liu et al., arXiv 2502.16982, so that step sizes are those of AdamW.

Unusual: `torch.optim.Muon` runs the iteration matrix by matrix in bfloat16, tens of products for each of a head's hundred small
matrices. An iteration X ← (aI + bXXᵀ + c(XXᵀ)²) X needs X's Gram matrix alone, so Gram matrices of equal size run through it as
one batch, in float32, and each X is multiplied once. And a matrix whose gradient is zero, that of a column which a batch lacks, stays:
as long as it is, a momentum makes a whole step however small it has become.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch

_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LENGTH_OF_ADAMW = 0.2
"""Root mean square of what AdamW moves a weight by, in step sizes."""


class Muon(torch.optim.Optimizer):
    """Matrices of more than one row and column. State: `momentum`, of the matrix's shape."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the matrices that have a gradient other than zero."""
        for group in self.param_groups:
            pairs = _with_gradients(group["params"])
            if not pairs:
                continue
            matrices, gradients = zip(*pairs, strict=True)
            for matrix in matrices:
                if "momentum" not in self.state[matrix]:
                    self.state[matrix]["momentum"] = torch.zeros_like(matrix)
            momenta = [self.state[matrix]["momentum"] for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, _MOMENTUM)  # Nesterov's
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for matrix, direction in zip(matrices, orthogonal(ahead), strict=True):
                matrix.sub_(direction, alpha=group["lr"] * _LENGTH_OF_ADAMW * max(matrix.shape) ** 0.5)


def _with_gradients(matrices: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the matrices that have a gradient other than zero, each with it."""
    pairs = [(matrix, matrix.grad) for matrix in matrices if matrix.grad is not None]
    if not pairs:
        return []
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in pairs])).tolist()
    return [pair for pair, norm in zip(pairs, norms, strict=True) if norm]


def orthogonal(matrices: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return of each matrix X = U S Vᵀ about U Vᵀ: singular values between 0.7 and 1.2, those far below the largest less.

    A matrix of zeros stays one.
    """
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.T for matrix in matrices]
    of_size: dict[int, list[int]] = defaultdict(list)
    for number, matrix in enumerate(wide):
        of_size[len(matrix)].append(number)
    found: dict[int, torch.Tensor] = {}
    for numbers in of_size.values():
        grams = torch.stack([wide[number] @ wide[number].T for number in numbers])
        found |= {number: factor @ wide[number] for number, factor in zip(numbers, _factors(grams), strict=True)}
    return [found[number] if wide[number] is matrix else found[number].T for number, matrix in enumerate(matrices)]


def _factors(grams: torch.Tensor) -> torch.Tensor:
    """Gram matrices XXᵀ (K, n, n) → what X is to be multiplied by from the left, (K, n, n)."""
    a, b, c = _COEFFICIENTS
    squared_norms = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=torch.finfo(grams.dtype).tiny)
    grams = grams / squared_norms
    identity = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    factors = identity / squared_norms.sqrt()
    for _ in range(_ITERATIONS):
        step = a * identity + b * grams + c * (grams @ grams)
        factors = step @ factors
        grams = step @ grams @ step
    return factors
