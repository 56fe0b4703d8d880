"""Deep layers compiled by torch while a model is trained: fewer, larger kernels for the same numbers within rounding.

Compiling takes tens of seconds in each process, so it pays for LLMs whose step is long. One program serves sequences of
every number and length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bahe_tasks.core.ctr_model import BaheCtrModel

BACKEND = "inductor"
"""It needs a C++ compiler on a CPU, Triton on a GPU."""


@contextmanager
def compiled_layers(model: BaheCtrModel, *, enabled: bool) -> Iterator[None]:
    """Run all deep layers but the last one compiled; of that one, parts are computed at one position (`last_layer`)."""
    if not enabled:
        yield
        return
    layers = list(model.deep.layers)[:-1]
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
