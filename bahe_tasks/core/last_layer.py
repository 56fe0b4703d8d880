"""The last deep layer, computed only at the position that is pooled.

Attention there needs keys and values of every position, but what follows it is done position by position, and one is
asked for. So its linear maps get that position's vector alone, (B, 1, in) of (B, S, in). Where what they give meets the
residual of all positions it is added to each: the sum at the pooled position is the right one, and no other is read.

Unusual: nothing is known of any architecture. Which maps may be narrowed is tried on a few vectors, map by map in the
order they are called in: a layer that views keys as (B, S, …) fails, one that mixes positions afterwards gives other
numbers. Only what is called after the last such map is narrowed: a query alone might be, but what a layer does with one
query, such as choosing the rows of its own causal mask, need not show on a few vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bahe_tasks.core.llm_check import agree
from bahe_tasks.core.llm_parts import UnsplittableArchitectureError, layers_path

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(B, S, H) and mask (B, S) → (B, S, H)."""

_MASK = [[1] * 7, [1] * 5 + [0] * 2, [0] * 3 + [1] * 4]
_POSITION = [5, 4, 3]
"""Of three sequences of seven: neither all the first nor all the last, and none padded."""


def at_position(hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return the vectors of (B, S, H) at `position` (B,) int64, (B, H)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


@contextmanager
def narrowed(maps: Iterable[nn.Module], position: torch.Tensor) -> Iterator[None]:
    """Let these maps see of (B, S, in) the vectors at `position` (B,) int64 alone, (B, 1, in)."""

    def narrow(_map: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        hidden, *others = inputs
        if hidden.dim() != 3 or hidden.shape[1] == 1:  # made of a narrowed one
            return None
        return (at_position(hidden, position).unsqueeze(1), *others)

    hooks = [module.register_forward_pre_hook(narrow) for module in maps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode(False)
def maps_to_narrow(llm: PreTrainedModel, forward: Forward) -> tuple[str, ...]:
    """Return the paths of the linear maps of the last layer that may see the pooled position alone.

    `forward` runs `llm`. A map with an adapter beside it is one map. Empty where the LLM has no layer, or none may.
    """
    maps = _linear_maps(llm)
    if not maps:
        return ()
    weight = next(llm.parameters())
    position, mask = (torch.tensor(values, device=weight.device) for values in (_POSITION, _MASK))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*mask.shape, llm.config.hidden_size, generator=generator).to(weight.device, weight.dtype)
    was_training = llm.training
    llm.eval()  # no dropout, and no number drawn from the generator of training
    try:
        with torch.autocast(weight.device.type, enabled=False):
            with _calls_noted(maps) as called:
                expected = _output_and_gradient(forward, hidden, mask, position)
            found: list[str] = []
            for path in called:
                agrees = False
                with suppress(Exception), narrowed([maps[p] for p in (*found, path)], position):
                    agrees = agree(expected, _output_and_gradient(forward, hidden, mask, position))
                found = [*found, path] if agrees else []
    finally:
        llm.train(was_training)
    return tuple(found)


@contextmanager
def _calls_noted(maps: Mapping[str, nn.Module]) -> Iterator[dict[str, None]]:
    """Give the paths of the maps that are called meanwhile, in the order of their first calls."""
    called: dict[str, None] = {}

    def note(path: str, _map: nn.Module, _inputs: tuple[torch.Tensor, ...]) -> None:
        called.setdefault(path)

    hooks = [module.register_forward_pre_hook(partial(note, path)) for path, module in maps.items()]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def _output_and_gradient(
    forward: Forward, hidden: torch.Tensor, mask: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Return the outputs at `position` and the gradients that a direction of them gives the input there, (M, H)."""
    with torch.enable_grad():
        given = hidden.clone().requires_grad_()
        output = at_position(forward(given, mask), position)
        direction = torch.linspace(-1, 1, output.shape[1], device=output.device, dtype=output.dtype)
        gradient = torch.autograd.grad((output * direction).sum(), given)[0]
    return torch.cat([output.detach(), gradient[mask.bool()]])


def _linear_maps(llm: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the linear maps of the last layer by path."""
    if not llm.config.num_hidden_layers:
        return {}
    try:
        last = f"{layers_path(llm)}.{llm.config.num_hidden_layers - 1}"
    except UnsplittableArchitectureError:
        return {}
    found: dict[str, nn.Module] = {}
    for path, module in llm.get_submodule(last).named_modules(prefix=last):
        is_map = isinstance(module, nn.Linear | Conv1D) or hasattr(module, "get_base_layer")
        if is_map and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = module
    return found
