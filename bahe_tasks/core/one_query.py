"""The last deep layer attends from the one position that is pooled, and leaves out the keys and values it can do without.

How: `one_query_attention`. Values are a linear map of a position in nearly every LLM and need not be computed; keys are not where rotary
positions or a norm stand between the map and the product, and are then computed as ever. The query is computed at its position alone.

Unusual: nothing is known of any architecture. `transformers` hands queries, keys and values of each layer to an attention function;
which linear maps they come from shows on a few vectors, and that all goes well is tried on them, part by part (`last_layer.Trial`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bahe_tasks.core.last_layer import Trial, at_position, innermost, last_layer_path, on_trial
from bahe_tasks.core.llm_parts import is_vectors
from bahe_tasks.core.one_query_attention import Running, attend

_NAME = "bahe_one_query"
_SUPPORTED = "sdpa"
"""The attention function that is replaced; others know of more than a mask (soft caps, sinks)."""


@dataclass(frozen=True)
class OneQuery:
    """Paths in the LLM of what the attention of its last layer is made of."""

    attention: str
    """The module that calls the attention function."""
    value: str | None = None
    """The linear map that needs not be computed, as `key`; None: it must be."""
    key: str | None = None
    queries: tuple[str, ...] = ()
    """Modules before the attention that are computed at the position alone."""


_running: dict[nn.Module, Callable[..., tuple[torch.Tensor, None]]] = {}  # attention module → its function
_found: dict[tuple[Any, ...], OneQuery] = {}  # configuration, what is tried, kind of weights → what went well


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return _running[module](module, *args, **kwargs)


AttentionInterface.register(_NAME, _call)


@contextmanager
def attending_once(llm: PreTrainedModel, found: OneQuery | None, position: torch.Tensor) -> Iterator[None]:
    """Let the last layer attend from `position` (B,) int64 alone; what it gives at other positions is not to be read."""
    if found is None:
        yield
        return
    key, value = (
        None if path is None else cast(nn.Linear, llm.get_submodule(path)) for path in (found.key, found.value)
    )
    running = Running(position, key, value, {})
    with ExitStack() as stack:
        for left_out in {linear for linear in (key, value) if linear is not None}:
            stack.enter_context(_forward_of(left_out, partial(_left_out, left_out, running)))
        for path in found.queries:
            module = llm.get_submodule(path)
            stack.enter_context(_forward_of(module, partial(_at_position_alone, module.forward, position)))
        stack.enter_context(_attention_by(llm.get_submodule(found.attention), partial(attend, running)))
        yield


@torch.inference_mode(False)
def one_query_of(
    llm: PreTrainedModel, forward: Callable[..., torch.Tensor], narrowable: tuple[str, ...]
) -> OneQuery | None:
    """Return what the last layer may do for one query alone; None where it must attend as ever.

    `forward` runs `llm`; of `narrowable` modules behind the attention see one position, none of them: None.
    """
    if not narrowable:
        return None
    with on_trial(llm, forward, narrowable) as trial:
        traced = _traced(llm, trial)
        if traced is None:
            return None
        made, before = traced
        weight = next(llm.parameters())
        alike = (llm.config.to_json_string(), made, before, narrowable, weight.dtype, weight.device.type)

        def agrees(plan: OneQuery) -> bool:
            return trial.agrees(attending_once(llm, plan, trial.position))

        if alike in _found and agrees(_found[alike]):
            return _found[alike]
        found = OneQuery(made.attention)
        if not agrees(found):
            return None
        if made.value is not None and agrees(more := replace(found, value=made.value)):
            found = more
        if made.key is not None and agrees(more := replace(found, key=made.key)):
            found = more
        for path in before:
            more = replace(found, queries=(*found.queries, path))
            if path not in (found.key, found.value) and agrees(more):
                found = more
        _found[alike] = found
        return found


def _traced(llm: PreTrainedModel, trial: Trial) -> tuple[OneQuery, tuple[str, ...]] | None:
    """Return where attention, keys and values of the last layer are made, and the modules before it; None if it is not one of its kind."""
    last = last_layer_path(llm)
    inside = {path: module for path, module in llm.named_modules() if path.startswith(last)}
    able = {
        path: m
        for path, m in inside.items()
        if getattr(getattr(m, "config", None), "_attn_implementation", "") == _SUPPORTED
    }
    outputs: dict[str, torch.Tensor] = {}  # (B, S, width) of each module, in the order of the calls
    calls: list[tuple[str, torch.Tensor, torch.Tensor, tuple[str, ...]]] = []

    def note(path: str, module: nn.Module, *given: Any, **named: Any) -> tuple[torch.Tensor, None]:
        calls.append((path, given[1], given[2], tuple(outputs)))
        return sdpa_attention_forward(module, *given, **named)

    def note_output(path: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if is_vectors(output) and output.dim() == 3:
            outputs[path] = output

    with ExitStack() as stack:
        for path in innermost(llm):
            if path in inside:
                stack.callback(inside[path].register_forward_hook(partial(note_output, path)).remove)
        for path, module in able.items():
            stack.enter_context(_attention_by(module, partial(note, path)))
        if not trial.agrees() or len(calls) != 1:
            return None
    attention, key, value, before = calls[0]
    maps = [path for path in before if type(inside[path]) is nn.Linear]
    of_key, of_value = (
        next((path for path in maps if _is_made_of(states, outputs[path])), None) for states in (key, value)
    )
    return OneQuery(attention, of_value, of_key), before


def _is_made_of(states: torch.Tensor, output: torch.Tensor) -> bool:
    """Tell whether states of heads (B, heads, S, d) are the output (B, S, heads·d) of a map as it stands."""
    flat = states.transpose(1, 2).flatten(2)
    return flat.shape == output.shape and torch.equal(flat, output)


def _left_out(module: nn.Linear, running: Running, hidden: torch.Tensor) -> torch.Tensor:
    """Note what the map would have been given; return zeros in its place, which take no memory."""
    running.read[module] = hidden
    return hidden.new_zeros(()).expand(*hidden.shape[:-1], module.out_features)


def _at_position_alone(
    forward: Callable[..., torch.Tensor], position: torch.Tensor, hidden: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Return what a module makes of the vectors of (B, S, H) at the position, zeros elsewhere."""
    if hidden.dim() != 3:
        return forward(hidden, *args, **kwargs)
    made = forward(at_position(hidden, position).unsqueeze(1), *args, **kwargs)
    whole = made.new_zeros(len(hidden), hidden.shape[1], made.shape[2])
    whole[torch.arange(len(hidden), device=hidden.device), position] = made[:, 0]
    return whole


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Replace what a module does."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def _attention_by(module: nn.Module, function: Callable[..., tuple[torch.Tensor, None]]) -> Iterator[None]:
    """Let an attention module call `function`; masks stay those that the LLM makes for its own."""
    own = cast(PreTrainedConfig, module.config)
    config = copy.copy(own)
    config._attn_implementation_internal = _NAME  # by its setter, parts of the configuration would change too
    module.config, _running[module] = cast(Any, config), function
    try:
        yield
    finally:
        module.config = cast(Any, own)
        del _running[module]
