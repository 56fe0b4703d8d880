"""The last deep layer, computed only at the position that is pooled.

Attention there reads every position (`one_query` says how little of each), but what follows it is done position by position, and one is
asked for. So the modules that follow, linear maps and norms, get that position's vector alone, (B, 1, H) of (B, S, H).
Where what they give meets the residual of all positions it is added to each: the sum at the pooled position is the right
one, and no other is read.

Unusual: nothing is known of any architecture. Which modules may be narrowed is tried on a few vectors, one by one in the
order they are called in: a layer that views keys as (B, S, …) fails, one that mixes positions afterwards gives other
numbers. Of the layer only what is called after the last such module is narrowed: a query alone might be, but what a layer does with
one query, such as choosing the rows of its own causal mask, need not show on a few vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from bahe_tasks.core.llm_check import agree
from bahe_tasks.core.llm_parts import is_vectors, layers_path

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(B, S, H) and mask (B, S) → (B, S, H)."""

_found: dict[tuple[Any, ...], tuple[str, ...]] = {}  # configuration, modules called, kind of weights → modules narrowed

_OF_THE_MACHINE = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)
"""What says nothing of the modules: bits would depend on free memory, or on a device that is broken from then on."""
_LOG = logging.getLogger(__name__)

_MASK = [[1] * 7, [1] * 5 + [0] * 2, [0] * 3 + [1] * 4]
_POSITION = [5, 4, 3]
"""Of three sequences of seven: neither all the first nor all the last, and none padded."""


def at_position(hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return the vectors of (B, S, H) at `position` (B,) int64, (B, H); one of (B, 1, H) is at it already."""
    if hidden.shape[1] == 1:
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


@contextmanager
def narrowed(modules: Iterable[nn.Module], position: torch.Tensor) -> Iterator[None]:
    """Let these modules see of (B, S, width) the vectors at `position` (B,) int64 alone, (B, 1, width)."""

    def narrow(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not _sees_positions(inputs):
            return None
        return (at_position(inputs[0], position).unsqueeze(1), *inputs[1:])

    hooks = [module.register_forward_pre_hook(narrow) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Trial:
    """A few vectors, and what the whole LLM makes of them; while it lasts nothing is dropped out."""

    forward: Forward
    hidden: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    narrowed: tuple[nn.Module, ...]
    """Modules that see one position whatever is tried."""
    expected: torch.Tensor

    def run(self) -> None:
        """Run the LLM once as it is."""
        with torch.no_grad(), narrowed(self.narrowed, self.position):
            self.forward(self.hidden, self.mask)

    def agrees(self, context: AbstractContextManager[None] | None = None) -> bool:
        """Tell whether the LLM gives the same at the position within `context`, and its input the same gradients."""
        try:
            with narrowed(self.narrowed, self.position), context or nullcontext():
                return agree(self.expected, _output_and_gradient(self.forward, self.hidden, self.mask, self.position))
        except _OF_THE_MACHINE:
            raise
        except Exception as error:  # whatever a module raises that must see all
            _LOG.debug("a trial of what may be left out failed: %s: %s", type(error).__name__, error)
            return False


@contextmanager
def on_trial(
    llm: PreTrainedModel, forward: Forward, narrowable: Iterable[str] = (), *, padded: bool = True
) -> Iterator[Trial]:
    """Give a trial of `forward`, which runs `llm`, whose modules `narrowable` see one position throughout."""
    weight = next(llm.parameters())
    position, mask = (torch.tensor(values, device=weight.device) for values in (_POSITION, _MASK))
    mask = mask if padded else torch.ones_like(mask)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*mask.shape, llm.config.hidden_size, generator=generator).to(weight.device, weight.dtype)
    was_training = llm.training
    llm.eval()  # no dropout, and no number drawn from the generator of training
    try:
        with torch.autocast(weight.device.type, enabled=False):
            expected = _output_and_gradient(forward, hidden, mask, position)
            modules = tuple(llm.get_submodule(path) for path in narrowable)
            yield Trial(forward, hidden, mask, position, modules, expected)
    finally:
        llm.train(was_training)


@torch.inference_mode(False)
def modules_to_narrow(llm: PreTrainedModel, forward: Forward) -> tuple[str, ...]:
    """Return the paths of the modules, of the last layer and behind it, that may see the pooled position alone.

    `forward` runs `llm`. A linear map with an adapter beside it is one module. Empty where the LLM has no layer.
    Modules found in this process for an LLM of the same configuration are tried together first: the weights of a day are
    not those of the day before, so they are tried, but one by one again only where they do not agree.
    """
    if not llm.config.num_hidden_layers:
        return ()
    weight, last = next(llm.parameters()), last_layer_path(llm)
    with _calls_noted(llm, since=last) as called, on_trial(llm, forward) as trial:
        of_whole = list(called)

        def agrees(paths: Iterable[str]) -> bool:
            return trial.agrees(narrowed([llm.get_submodule(path) for path in paths], trial.position))

        alike = (llm.config.to_json_string(), tuple(of_whole), weight.dtype, weight.device.type)
        if alike in _found and agrees(_found[alike]):
            return _found[alike]
        found: list[str] = []
        for path in of_whole:
            if agrees([*found, path]):
                found.append(path)
            elif path.startswith(last):
                found = []
        if found:  # nothing is found either where weights are not numbers
            _found[alike] = tuple(found)
    return tuple(found)


def last_layer_path(llm: PreTrainedModel) -> str:
    """Return the path of the last of the LLM's layers."""
    return f"{layers_path(llm)}.{llm.config.num_hidden_layers - 1}"


@contextmanager
def _calls_noted(llm: PreTrainedModel, *, since: str) -> Iterator[list[str]]:
    """Give the paths of the innermost modules that see (B, S, width) and are not called before module `since`, in the order of the calls."""
    called: dict[str, bool] = {}
    order: list[str] = []
    begun = False

    def begin(_layer: nn.Module, _inputs: tuple[Any, ...]) -> None:
        nonlocal begun
        begun = True

    def note(path: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if called.setdefault(path, begun) and _sees_positions(inputs) and path not in order:
            order.append(path)

    hooks = [llm.get_submodule(since).register_forward_pre_hook(begin)]
    hooks += [llm.get_submodule(path).register_forward_pre_hook(partial(note, path)) for path in innermost(llm)]
    try:
        yield order
    finally:
        for hook in hooks:
            hook.remove()


def _sees_positions(inputs: tuple[Any, ...]) -> bool:
    return bool(inputs) and is_vectors(inputs[0]) and inputs[0].dim() == 3


def innermost(llm: nn.Module) -> list[str]:
    """Return the paths of modules without modules in them; a linear map counts as one whatever stands beside it."""
    found: list[str] = []
    for path, module in llm.named_modules():
        innermost = not any(True for _ in module.children()) or hasattr(module, "get_base_layer")
        if innermost and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return found


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
