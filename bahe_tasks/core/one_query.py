"""The last deep layer attends from the one position that is pooled, and leaves out the keys and values it can do without.

How: `one_query_attention`. Values are a linear map of a position in nearly every LLM and need not be computed; keys are not where rotary
positions or a norm stand between the map and the product, and are then computed as ever. The query is computed at its position alone.

Unusual: nothing is known of any architecture. `transformers` hands queries, keys and values of each layer to an attention function;
which linear maps they come from shows on a few vectors, and that all goes well is tried on them, part by part (`last_layer.Trial`).
Masks are those the LLM makes, so that nothing need be known of windows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bahe_tasks.core.last_layer import Trial, at_position, innermost, last_layer_path, on_trial
from bahe_tasks.core.llm_parts import is_vectors
from bahe_tasks.core.one_query_attention import OneQueryState, attend

_NAME = "bahe_one_query"
_SUPPORTED = "sdpa"
"""The attention function that is replaced; others know of more than a mask (soft caps, sinks)."""


@dataclass(frozen=True)
class OneQueryPlan:
    """Paths in the LLM of what the attention of its last layer is made of."""

    attention: str
    """The module that calls the attention function."""
    value: str | None = None
    """The linear map that needs not be computed, as `key`; None: it must be."""
    key: str | None = None
    queries: tuple[str, ...] = ()
    """Modules before the attention that are computed at the position alone."""


_functions: dict[nn.Module, Callable[..., tuple[torch.Tensor, None]]] = {}  # attention module → what it calls
_found: dict[tuple[Any, ...], OneQueryPlan] = {}  # configuration, modules called, kind of weights → what went well


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return _functions[module](module, *args, **kwargs)


AttentionInterface.register(_NAME, _call)


@contextmanager
def attending_once(llm: PreTrainedModel, plan: OneQueryPlan | None, position: torch.Tensor) -> Iterator[None]:
    """Let the last layer attend from `position` (B,) int64 alone; what it gives at other positions is not to be read.

    Without a plan it attends as ever. Raises `ValueError` where a map was replaced since the plan was made.
    """
    if plan is None:
        yield
        return
    key, value = (None if path is None else _plain_map(llm, path) for path in (plan.key, plan.value))
    state = OneQueryState(position, key, value, {})
    with ExitStack() as stack:
        for left_out in {linear for linear in (key, value) if linear is not None}:
            stack.enter_context(_forward_of(left_out, partial(_left_out, left_out, state)))
        for path in plan.queries:
            stack.enter_context(_computed_at(llm.get_submodule(path), position))
        stack.enter_context(_attention_by(llm.get_submodule(plan.attention), partial(attend, state)))
        yield


@torch.inference_mode(False)
def one_query_of(
    llm: PreTrainedModel, forward: Callable[..., torch.Tensor], narrowable: tuple[str, ...]
) -> OneQueryPlan | None:
    """Return what the last layer may leave out where one query is asked for; None where it must attend as ever.

    `forward` runs `llm`. `narrowable` are the modules behind the attention that see one position; without any there is no plan.
    """
    if not narrowable:
        return None
    with on_trial(llm, forward, narrowable) as trial:
        traced = _traced(llm, trial)
        if traced is None:
            return None
        weight = next(llm.parameters())
        called = tuple((path, type(llm.get_submodule(path))) for path in traced.outputs)
        alike = (llm.config.to_json_string(), called, narrowable, weight.dtype, weight.device.type)
        plan = _found.get(alike)
        if plan is None or not trial.agrees(attending_once(llm, plan, trial.position)):
            plan = _plan_of(llm, trial, traced)
    with on_trial(llm, forward, narrowable, padded=False) as trial:  # LLMs may make no mask then
        if plan is None or not trial.agrees(attending_once(llm, plan, trial.position)):
            return None
    _found[alike] = plan
    return plan


class _Traced(NamedTuple):
    """The one call of an attention function in the last layer."""

    attention: str
    key: torch.Tensor  # (B, kv, S, d), as `value`
    value: torch.Tensor
    outputs: dict[str, torch.Tensor]
    """(B, S, width) of each innermost module before it, in the order of the calls."""


def _plan_of(llm: PreTrainedModel, trial: Trial, traced: _Traced) -> OneQueryPlan | None:
    """Find out part by part what may be left out."""

    def agrees(plan: OneQueryPlan) -> bool:
        return trial.agrees(attending_once(llm, plan, trial.position))

    plan = OneQueryPlan(traced.attention)
    if not agrees(plan):
        return None
    maps = [path for path in traced.outputs if type(llm.get_submodule(path)) is nn.Linear]
    key, value = (
        next((path for path in maps if _is_made_of(states, traced.outputs[path])), None)
        for states in (traced.key, traced.value)
    )
    if value is not None and agrees(more := replace(plan, value=value)):
        plan = more
    if key is not None and agrees(more := replace(plan, key=key)):
        plan = more
    # That numbers agree is not enough here: where attention is weak keys hardly matter today, and may tomorrow.
    queries = tuple(
        path for path in traced.outputs if path not in (key, value) and _serves_query(llm, path, trial, traced)
    )
    return more if queries and agrees(more := replace(plan, queries=queries)) else plan


def _serves_query(llm: PreTrainedModel, path: str, trial: Trial, traced: _Traced) -> bool:
    """Tell whether all keys and values stay what they are, to the bit, where a module is computed at one position."""
    with _computed_at(llm.get_submodule(path), trial.position):
        found = _traced(llm, trial)
    return found is not None and torch.equal(found.key, traced.key) and torch.equal(found.value, traced.value)


def _traced(llm: PreTrainedModel, trial: Trial) -> _Traced | None:
    """Run the LLM once and return what its last layer hands to its attention function; None where it does not call the one known here."""
    last = last_layer_path(llm)
    inside = {path: module for path, module in llm.named_modules() if path.startswith(last)}
    outputs: dict[str, torch.Tensor] = {}
    calls: list[_Traced] = []

    def note(path: str, module: nn.Module, *given: Any, **named: Any) -> tuple[torch.Tensor, None]:
        calls.append(_Traced(path, given[1], given[2], dict(outputs)))
        return sdpa_attention_forward(module, *given, **named)

    def note_output(path: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if is_vectors(output) and output.dim() == 3:
            outputs[path] = output

    with ExitStack() as stack:
        for path in innermost(llm):
            if path in inside:
                stack.callback(inside[path].register_forward_hook(partial(note_output, path)).remove)
        for path, module in inside.items():
            if getattr(getattr(module, "config", None), "_attn_implementation", "") == _SUPPORTED:
                stack.enter_context(_attention_by(module, partial(note, path)))
        trial.run()
    return calls[0] if len(calls) == 1 else None


def _is_made_of(states: torch.Tensor, output: torch.Tensor) -> bool:
    """Tell whether states of heads (B, heads, S, d) are the output (B, S, heads·d) of a map as it stands."""
    flat = states.transpose(1, 2).flatten(2)
    return flat.shape == output.shape and torch.equal(flat, output)


def _left_out(module: nn.Linear, state: OneQueryState, hidden: torch.Tensor) -> torch.Tensor:
    """Note what the map would have been given; return zeros in its place, which take no memory."""
    state.read[module] = hidden
    return hidden.new_zeros(()).expand(*hidden.shape[:-1], module.out_features)


def _at_position_alone(
    forward: Callable[..., torch.Tensor], position: torch.Tensor, hidden: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Return what a module makes of the vectors of (B, S, H) at the position, zeros elsewhere."""
    made = forward(at_position(hidden, position).unsqueeze(1), *args, **kwargs)
    whole = made.new_zeros(len(hidden), hidden.shape[1], made.shape[2])
    whole[torch.arange(len(hidden), device=hidden.device), position] = made[:, 0]
    return whole


def _plain_map(llm: PreTrainedModel, path: str) -> nn.Linear:
    module = llm.get_submodule(path)
    if type(module) is not nn.Linear:
        raise ValueError(f"{path} is a {type(module).__name__} now: what it does beside its weights would be lost")
    return module


@contextmanager
def _computed_at(module: nn.Module, position: torch.Tensor) -> Iterator[None]:
    with _forward_of(module, partial(_at_position_alone, module.forward, position)):
        yield


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Replace what a module does."""
    own = vars(module).get("forward")
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
    module.config, _functions[module] = cast(Any, config), function
    try:
        yield
    finally:
        module.config = cast(Any, own)
        del _functions[module]
