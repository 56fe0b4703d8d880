"""Weights put together from those of several maps, once for many batches where they do not change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Made = TypeVar("Made")
_kept: ContextVar[dict[Hashable, Any] | None] = ContextVar("weights_kept", default=None)


@contextmanager
def weights_kept() -> Iterator[None]:
    """Let `made_once` keep what it makes meanwhile: weights must not change. Results have the same bits."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def made_once(key: Hashable, make: Callable[[], Made]) -> Made:
    """Return what `make` makes of weights, within `weights_kept` what it made first for the `key`."""
    kept = _kept.get()
    if kept is None:
        return make()
    if key not in kept:
        kept[key] = make()
    return kept[key]
