"""The cut of an LLM between two of its layers.

Unusual: both halves keep the LLM's own forward function. A module that belongs to the other half is replaced there by
one that adds nothing, and the configuration tells each half of its own layers only.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from bahe_tasks.core.llm_parts import LlmParts, Trace, UnsplittableArchitectureError, find_parts, is_vectors
from bahe_tasks.wrong_use import WrongUseError

_Architecture = tuple[str, str]
"""Class and configuration, which decide both of what is remembered of it."""
_parts: dict[_Architecture, LlmParts] = {}
_scales: dict[_Architecture, float] = {}


class LayerCountError(WrongUseError):
    """More shallow layers were asked for than the LLM has layers."""


class AddsNothing(nn.Module):
    """Stands in place of a module of the other half: vectors it gives back as they are, for positions it gives zero."""

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        for value in (named.get("inputs_embeds"), *inputs, *named.values()):
            if is_vectors(value):
                return value
        return torch.zeros(())


def cut(llm: PreTrainedModel, num_shallow_layers: int) -> tuple[PreTrainedModel, PreTrainedModel, float]:
    """Return the shallow half, the deep half, and what the deep half multiplies its input with.

    Their modules are taken out of `llm`, which becomes the deep half. Raises `LayerCountError`, and
    `UnsplittableArchitectureError` where the parts cannot be told apart.
    """
    total = llm.config.num_hidden_layers
    if not 0 <= num_shallow_layers <= total:
        raise LayerCountError(
            f"encoder.num_shallow_layers is {num_shallow_layers}, but {type(llm).__name__} has {total} layers: "
            f"set it between 0 and {total}"
        )
    architecture = type(llm).__name__, llm.config.to_json_string()
    parts = _parts.get(architecture) or find_parts(llm)
    before = {path: llm.get_submodule(path) for path in parts.before}
    for path in (*parts.before, *parts.unused):
        llm.set_submodule(path, AddsNothing())
    scale = _scales[architecture] if architecture in _scales else _input_scale(llm, parts)
    _parts[architecture], _scales[architecture] = parts, scale
    layers = llm.get_submodule(parts.layers)
    llm.set_submodule(parts.layers, nn.ModuleList())
    shallow = copy.deepcopy(llm)  # what is left by now is small: final norm, rotary frequencies
    for path, module in before.items():
        shallow.set_submodule(path, module)
    for path in parts.after:
        shallow.set_submodule(path, AddsNothing())
    for half, part in ((shallow, slice(0, num_shallow_layers)), (llm, slice(num_shallow_layers, total))):
        half.set_submodule(parts.layers, layers[part])  # type: ignore[index]
        _set_config_of_part(half, parts, part)
    return shallow, llm, scale


def _set_config_of_part(half: PreTrainedModel, parts: LlmParts, part: slice) -> None:
    config = copy.deepcopy(half.config)
    if getattr(config, "layer_types", None):
        with suppress(AttributeError):  # of some it is computed from the number of layers
            config.layer_types = config.layer_types[part]
    config.num_hidden_layers = part.stop - part.start
    config.use_cache = False  # a sliced layer keeps its old index, with which a cache fails
    for path, module in half.named_modules():
        if f"{parts.layers}.".startswith(f"{path}.") or not path:
            module.config = config


def _input_scale(llm: PreTrainedModel, parts: LlmParts) -> float:
    """Return what the forward function multiplies its input with by itself, when the modules before the layers add nothing.

    Raises `UnsplittableArchitectureError` where it does more to its input than that.
    """
    first_layer = llm.get_submodule(parts.layers)[0]  # type: ignore[index]
    trace = Trace()
    weight = next(first_layer.parameters())
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-2, 3, (1, 6, llm.config.hidden_size), generator=generator)
    given = (2.0**exponents).to(weight.device, weight.dtype)  # times a power of two is exact in every type
    hook = first_layer.register_forward_pre_hook(trace.note_input, with_kwargs=True)
    try:
        with torch.no_grad():
            llm(inputs_embeds=given, attention_mask=torch.ones_like(given[:, :, 0], dtype=torch.long))
    finally:
        hook.remove()
    arrived = trace.first_layer_input
    ratios = arrived.squeeze() / given.squeeze() if arrived is not None and arrived.numel() == given.numel() else given
    if not bool((ratios == ratios[0, 0]).all()) or ratios[0, 0] == 0:
        raise UnsplittableArchitectureError(
            f"{type(llm).__name__} cannot be cut: its forward function does more to its input than its modules do"
        )
    return float(ratios[0, 0])
