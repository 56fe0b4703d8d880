"""Which modules of an LLM stand before and after its layers.

Unusual: nothing is known of any architecture. The LLM runs once over a few tokens, and autograd tells which modules make
the first layer's input: the token embedding and whatever positions, norm or projection follow it. What is first called
when the last layer is done stands behind the layers: a final norm, a pooler. All else, such as rotary frequencies or a
relative position bias, serves the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from bahe_tasks.core.llm_check import sample_tokens
from bahe_tasks.wrong_use import WrongUseError


class UnsplittableArchitectureError(WrongUseError):
    """An architecture that cannot be cut into shallow and deep layers, or has not the attention asked for."""


@dataclass(frozen=True)
class LlmParts:
    """Dotted paths of an LLM's modules: the list of its layers, and outermost modules beside it."""

    layers: str
    before: tuple[str, ...]
    """Their outputs make the first layer's input."""
    after: tuple[str, ...]
    """First called when the last layer is done; the last hidden state depends on them."""
    unused: tuple[str, ...]
    """First called when the last layer is done; the last hidden state does not depend on them."""


@dataclass
class Trace:
    """What one forward pass shows: outputs by module in the order of the first calls, and the first layer's input."""

    outputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    before_last_layer: set[str] = field(default_factory=set)
    first_layer_input: torch.Tensor | None = None
    layers_are_done: bool = False

    def note_output(self, path: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        several = isinstance(output, tuple)
        # A fixed table of positions is not trained, but its output is looked for all the same.
        traced = tuple(
            t.detach().clone().requires_grad_() if is_vectors(t) and not t.requires_grad else t
            for t in (output if several else (output,))
        )
        self.outputs.setdefault(path, []).extend(t for t in traced if is_vectors(t))
        if not self.layers_are_done:
            self.before_last_layer.add(path)
        return traced if several else traced[0]

    def note_input(self, _layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.first_layer_input = next(t for t in (*inputs, *named.values()) if is_vectors(t))

    def note_end(self, _layer: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        self.layers_are_done = True

    def reached(self, end: torch.Tensor) -> set[str]:
        """Return the modules from whose outputs `end` was computed."""
        pairs = [(path, tensor) for path, tensors in self.outputs.items() for tensor in tensors]
        gradients = torch.autograd.grad(end.sum(), [t for _, t in pairs], allow_unused=True, retain_graph=True)
        return {path for (path, _), gradient in zip(pairs, gradients, strict=True) if gradient is not None}


def is_vectors(value: Any) -> bool:
    """Tell hidden states from ids, positions and masks."""
    return torch.is_tensor(value) and value.is_floating_point() and value.dim() >= 2


def text_model(llm: PreTrainedModel) -> PreTrainedModel:
    """Return the part of an LLM that reads text: itself, or its language model where it also sees or hears."""
    config = llm.config.get_text_config()
    if config is llm.config:
        return llm
    return next((m for m in llm.modules() if isinstance(m, PreTrainedModel) and m.config is config), llm)


def find_parts(llm: PreTrainedModel) -> LlmParts:
    """Run the LLM over the sample tokens and tell its modules apart.

    Raises `UnsplittableArchitectureError` where it is no single stack of layers.
    """
    path_of_layers = layers_path(llm)
    layers = llm.get_submodule(path_of_layers)
    trace = Trace()
    hooks: list[RemovableHandle] = [
        layers[0].register_forward_pre_hook(trace.note_input, with_kwargs=True),  # type: ignore[index]
        layers[-1].register_forward_hook(trace.note_end),  # type: ignore[index]
        *(
            llm.get_submodule(path).register_forward_hook(partial(trace.note_output, path))
            for path in _beside_layers(llm, path_of_layers)
        ),
    ]
    input_ids, mask = sample_tokens(llm)
    try:
        with torch.enable_grad():
            last = llm(input_ids=input_ids, attention_mask=mask).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    if trace.first_layer_input is None:
        raise UnsplittableArchitectureError(f"{type(llm).__name__} cannot be cut: it does not call its first layer")
    of_input, of_output = trace.reached(trace.first_layer_input), trace.reached(last)
    early, late = trace.before_last_layer, trace.outputs.keys() - trace.before_last_layer
    return LlmParts(
        layers=path_of_layers,
        before=tuple(path for path in trace.outputs if path in early & of_input),
        after=tuple(path for path in trace.outputs if path in late & of_output),
        unused=tuple(path for path in trace.outputs if path in late - of_output),
    )


def layers_path(llm: PreTrainedModel) -> str:
    """Return the path of the one list that holds the LLM's layers. Raises `UnsplittableArchitectureError`."""
    total = llm.config.num_hidden_layers
    lists = [path for path, module in llm.named_modules() if isinstance(module, nn.ModuleList) and len(module) == total]
    # A layer may hold as many experts as there are layers.
    paths = [path for path in lists if not any(path.startswith(f"{outer}.") for outer in lists)]
    if llm.config.is_encoder_decoder:
        reason = "it has an encoder and a decoder, where one stack of layers is needed"
    else:
        reason = f"it has {len(paths)} lists of {total} layers, where one is needed"
    if len(paths) != 1 or llm.config.is_encoder_decoder:
        raise UnsplittableArchitectureError(
            f"{type(llm).__name__} cannot be cut into shallow and deep layers: {reason}; choose another checkpoint"
        )
    return paths[0]


def _beside_layers(llm: nn.Module, path_of_layers: str) -> Iterator[str]:
    """Yield the outermost modules that neither are nor hold the layers."""
    for path, _ in llm.named_modules():
        parent = path.rpartition(".")[0]
        holds_layers = f"{path_of_layers}.".startswith(f"{path}.")
        if path and not holds_layers and (not parent or path_of_layers.startswith(f"{parent}.")):
            yield path
