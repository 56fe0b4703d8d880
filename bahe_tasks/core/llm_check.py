"""What the two halves of an LLM are tried on when weights are cut: few tokens, so that it stays cheap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from transformers import PreTrainedModel

_WINDOW_SETTINGS = ("sliding_window", "attention_chunk_size")
_WINDOW = 3
"""Fewer than the sample tokens, so that they reach beyond it."""


def sample_tokens(llm: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (3, 8): a row without padding, one padded right, one padded left."""
    table = cast(torch.Tensor, llm.get_input_embeddings().weight)
    input_ids = torch.arange(3, 27, device=table.device).reshape(3, 8) % len(table)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [0] * 3 + [1] * 5], device=table.device)
    return input_ids, mask


@contextmanager
def small_windows(*llms: PreTrainedModel) -> Iterator[None]:
    """Let layers that see a window of the sequence see three tokens meanwhile; real windows are thousands wide."""
    configs = {
        id(module.config): module.config for llm in llms for module in llm.modules() if hasattr(module, "config")
    }
    windows = [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name in _WINDOW_SETTINGS
        if isinstance(getattr(config, name, None), int)
    ]
    for config, name, _ in windows:
        setattr(config, name, _WINDOW)
    try:
        yield
    finally:
        for config, name, window in windows:
            setattr(config, name, window)


def agree(whole: torch.Tensor, halves: torch.Tensor) -> bool:
    """Tell whether (M, H) vectors are equal but for the rounding of their type, grown through the layers."""
    tolerance = 1e-3 if whole.dtype == torch.float32 else 5e-2
    difference = (whole.float() - halves.float()).norm(dim=1)
    return bool((difference <= tolerance * whole.float().norm(dim=1)).all())


def cause(error: Exception) -> str:
    """Return type and message of an error of `transformers` or `torch` in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
