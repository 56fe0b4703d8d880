"""Deep layers compiled by torch while a model is trained: fewer, larger kernels for the same numbers within rounding.

Where layers drop out, they drop other units than uncompiled. Compiling takes tens of seconds in each process, so it pays
for LLMs whose step is long. A handful of programs serve sequences of every number and length: those of one behavior, those with
padding and without, and the like are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.wrong_use import WrongUseError

BACKEND = "inductor"
"""It needs a C++ compiler on a CPU, Triton on a GPU."""
_MOST_PROGRAMS = 64
"""Of one layer, in the whole process; beyond it torch goes on uncompiled."""


class NothingToCompileError(WrongUseError):
    """Compiling of deep layers of which none may be compiled."""


@contextmanager
def compiled_layers(model: BaheCtrModel, *, enabled: bool) -> Iterator[None]:
    """Run all deep layers but the last one compiled; of that one, parts are computed at one position (`last_layer`).

    Raises `NothingToCompileError` where the last is the only one.
    """
    layers = layers_to_compile(model) if enabled else []
    if enabled and not layers:
        raise NothingToCompileError(
            "training.compile_layers is on, but all deep layers but the last one are compiled, and there is no other: "
            "set it to false, or encoder.num_shallow_layers lower"
        )
    with compiled(layers):
        yield


def layers_to_compile(model: BaheCtrModel) -> list[nn.Module]:
    """Return all deep layers but the last."""
    layers = list(model.deep.layers)[:-1]
    if layers:
        # What `at` leaves out is found by hooks on the modules of every layer, of which each compiled one would get a program of its own.
        _ = model.deep.one_query
    return layers


@contextmanager
def compiled(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Run layers compiled."""
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    try:
        with torch._dynamo.config.patch(recompile_limit=_MOST_PROGRAMS):
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
