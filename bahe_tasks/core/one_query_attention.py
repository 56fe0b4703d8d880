"""Attention of one query over S positions, without keys and values of every position.

With k_j = W_k x_j and v_j = W_v x_j the attention of a query q is

    softmax_j(q · k_j) = softmax_j((W_kᵀ q) · x_j)    and    Σ_j a_j v_j = W_v (Σ_j a_j x_j):

a product with W_k and one with W_v for each sequence, where keys and values take both for each position. DeepSeek-V2 (2024) takes
keys and values up from their latent in this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class OneQueryState:
    """What `attend` reads beside its arguments."""

    position: torch.Tensor
    """(B,) int64, of the query."""
    key: nn.Linear | None
    """The map that was left out, as `value`; None: keys are given."""
    value: nn.Linear | None
    read: dict[nn.Module, torch.Tensor]
    """Map that was left out → what it would have been given, (B, S, H)."""


def attend(
    state: OneQueryState,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **_unused_by_sdpa: Any,
) -> tuple[torch.Tensor, None]:
    """As `sdpa_attention_forward`, for the query at the position: (B, heads, S, d) each → (B, S, heads, d), all S alike."""
    if position_bias is not None:
        raise ValueError("a position bias is not known here")
    (num, heads, length, width), groups = query.shape, key.shape[1]
    scaling = width**-0.5 if scaling is None else scaling
    each = torch.arange(num, device=query.device)
    asked = scaling * query[each, :, state.position].view(num, groups, heads // groups, width)  # (B, kv, g, d)
    if state.key is None:
        scores = asked @ key.transpose(2, 3)
    else:
        weight, bias = _of_groups(state.key, groups)
        scores = _mapped(asked, weight).flatten(1, 2) @ state.read[state.key].transpose(1, 2)  # (B, heads, S)
        if (
            bias is not None
        ):  # the same for all positions, so that shares do not depend on it: it has a gradient, of zero
            scores = scores + (asked * bias).sum(3).flatten(1).unsqueeze(2)
    scores = scores.view(num, heads, length)
    if attention_mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if causal:
            later = torch.arange(length, device=query.device) > state.position.unsqueeze(1)
            scores = scores.masked_fill(later.unsqueeze(1), torch.finfo(scores.dtype).min)
    else:
        mask = attention_mask.expand(num, -1, -1, -1)
        mask = mask[:, :, 0] if mask.shape[2] == 1 else mask[each, :, state.position]  # (B, 1 or heads, S)
        is_bool = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if is_bool else scores + mask
    shares = torch.dropout(scores.softmax(2), dropout, train=True) if dropout else scores.softmax(2)
    if state.value is None:
        of_heads = shares.to(value.dtype).view(num, groups, heads // groups, length) @ value
    else:
        weight, bias = _of_groups(state.value, groups)
        read = state.read[state.value]
        means = (shares.to(read.dtype) @ read).view(num, groups, heads // groups, -1)  # (B, kv, g, H)
        of_heads = _mapped(means, weight.transpose(1, 2))
        if bias is not None:
            of_heads = of_heads + shares.sum(2).view(num, groups, -1, 1) * bias
    return of_heads.reshape(num, 1, heads, -1).expand(-1, length, -1, -1), None


def _of_groups(linear: nn.Linear, groups: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight (kv, d, H) and bias (kv, 1, d) by group of heads."""
    bias = None if linear.bias is None else linear.bias.view(groups, 1, -1)
    return linear.weight.view(groups, -1, linear.in_features), bias


def _mapped(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(B, kv, g, d) times (kv, d, e) → (B, kv, g, e)."""
    num, groups, each, _ = vectors.shape
    return (vectors.transpose(0, 1).flatten(1, 2) @ weight).view(groups, num, each, -1).transpose(0, 1)
