"""Seconds that named functions take inside a running program, without a change to it."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from time import monotonic
from typing import Any
from unittest import mock


class Stopwatch:
    """Own seconds of named spans: what a span inside another takes counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, ...], float] = defaultdict(float)
        """Names of the spans from the outermost inwards → seconds."""
        self._open = threading.local()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Take the time of a span of this thread."""
        spans: list[list[Any]] = self._open.__dict__.setdefault("spans", [])
        spans.append([name, 0.0])
        began = monotonic()
        try:
            yield
        finally:
            took = monotonic() - began
            path = tuple(n for n, _ in spans)
            self.seconds[path] += took - spans.pop()[1]
            if spans:
                spans[-1][1] += took

    @contextmanager
    def watching(self, spans: Mapping[str, list[Callable[..., Any]]], *, packages: tuple[str, ...]) -> Iterator[None]:
        """Take the time of every call of these functions, wherever a loaded module of the packages holds one by name.

        Raises `ValueError` where a function is held nowhere: its time would be silently nothing.
        """
        with ExitStack() as patches:
            for name, functions in spans.items():
                for function in functions:
                    held = list(_holders(function, packages))
                    if not held:
                        raise ValueError(f"{function.__qualname__} is in no loaded module of {', '.join(packages)}")
                    for module, attribute in held:
                        patches.enter_context(mock.patch.object(module, attribute, self._timed(name, function)))
            yield

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.span(name):
                return function(*args, **kwargs)

        return timed


def _holders(function: Callable[..., Any], packages: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    """Yield each module of the packages that holds the function, and under what name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] in packages:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    yield module, attribute
