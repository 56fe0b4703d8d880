"""How many floating-point operations a forward or backward pass takes, and how many a second this machine can do.

Source of the count: Chowdhery et al., PaLM, 2022, appendix B. A multiply-add is two operations; norms, activations and
lookups are left out. Scores and weighted sums of causal attention count half, since half of them are never needed.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import nn
from transformers import PreTrainedModel

from bahe_tasks.core.llm_split import DeepLayers


def matrix_weights(llm: nn.Module) -> int:
    """Return the weights that each position is multiplied with: all matrices but those that are looked up in."""
    looked_up = {id(p) for module in llm.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return sum(p.numel() for p in llm.parameters() if p.dim() == 2 and id(p) not in looked_up)


def forward_operations(llm: PreTrainedModel, *, sequences: float, length: int, causal: bool = True) -> float:
    """Return 2 · weights + 4 · length · H · layers (half of it if causal) operations for each position."""
    attention = 4 * length * llm.config.hidden_size * llm.config.num_hidden_layers
    return sequences * length * (2 * matrix_weights(llm) + attention * (0.5 if causal else 1.0))


def deep_forward_operations(
    deep: DeepLayers, *, sequences: float, behaviors: int, pooling: str, causal: bool = True
) -> float:
    """Return those of the deep layers over sequences of so many behaviors, of which `core.last_layer` and `core.one_query` save some."""
    length = behaviors + (pooling == "summary")
    everywhere = forward_operations(deep.llm, sequences=sequences, length=length, causal=causal)
    if pooling not in ("first", "last", "summary"):
        return everywhere
    one, width = deep.one_query, deep.width
    at_one = list(deep.narrowable)
    saved_attention = 0.0
    if one is not None:
        absorbed = [path for path in (one.key, one.value) if path is not None]
        at_one += [*one.queries, *absorbed]
        of_position = 2 * width * (2 + len(absorbed) * (deep.llm.config.num_attention_heads - 1))
        saved_attention = length * (4 * length * width * (0.5 if causal else 1.0) - of_position)
    weights = sum(matrix_weights(deep.llm.get_submodule(path)) for path in at_one)
    return everywhere - sequences * ((length - 1) * 2 * weights + saved_attention)


def training_operations(forward: float, *, lora: bool = False) -> float:
    """Return forward and backward: twice a forward pass for the gradients, once where weights need none (LoRA)."""
    return forward * (2 if lora else 3)


def matmul_operations_per_s(device: torch.device, dtype: torch.dtype, *, size: int, seconds: float = 1.0) -> float:
    """Return what a product of two size x size matrices reaches, the best of the runs that fit `seconds`."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, until = float("inf"), perf_counter() + seconds
    for run in range(1000):
        _wait(device)
        began = perf_counter()
        for _ in range(4):
            a @ b
        _wait(device)
        if run:  # the first one warms up
            best = min(best, (perf_counter() - began) / 4)
        if run > 1 and perf_counter() > until:
            break
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
