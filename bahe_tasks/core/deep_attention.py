"""Which behaviors a behavior attends to in the deep layers, where it is not to be what the architecture does.

A mask of four dimensions goes into the LLM's forward function as it stands, where `transformers` would else build its
own. Sliding windows and the like are so switched off: the setting means all of a history, or all of its past.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

DeepAttention = Literal["as_trained", "bidirectional", "causal"]


def allowed_pairs(mask: torch.Tensor, attention: DeepAttention) -> torch.Tensor:
    """Mask (B, S) (1 = present) → (B, S, S), true where position i (second axis) attends to j (third)."""
    size = mask.shape[1]
    pairs = mask.bool()[:, None, :].expand(-1, size, -1)
    return pairs.tril() if attention == "causal" else pairs


def four_dimensional_mask(
    mask: torch.Tensor, attention: DeepAttention, *, implementation: str, dtype: torch.dtype
) -> torch.Tensor:
    """Mask (B, S) → (B, 1, S, S): boolean for sdpa, as `transformers` has it, else additive of `dtype`.

    A position always attends to itself, so that a padded one, which no other attends to, has a softmax over something.
    """
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pairs = (allowed_pairs(mask, attention) | itself).unsqueeze(1)
    if implementation == "sdpa":
        return pairs
    return torch.zeros(pairs.shape, dtype=dtype, device=mask.device).masked_fill(~pairs, torch.finfo(dtype).min)


def attends_as_asked(
    deep: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    attention: DeepAttention,
    *,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Tell by gradients whether an output depends on just those of five behaviors that it is to attend to.

    `deep` maps (B, S, H) and mask (B, S) to (B, S, H). Rows with padding on the right and on the left are tried.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, width, generator=generator).to(device, dtype).requires_grad_()
    direction = torch.randn(width, generator=generator).to(device, dtype)  # a sum would vanish behind a norm
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]], device=device)
    with torch.enable_grad():
        outputs = deep(hidden, mask)
        gradients = [
            torch.autograd.grad((outputs[:, i] @ direction).sum(), hidden, retain_graph=True)[0] for i in range(5)
        ]
    depends = torch.stack([gradient.abs().amax(2) for gradient in gradients], 1)  # (B, S, S)
    present = mask.bool()
    return bool(
        depends.isfinite().all() and torch.equal((depends > 0)[present], allowed_pairs(mask, attention)[present])
    )
