"""Stages that take no time, for every program a test starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def stub_stages() -> Iterator[None]:
    """Put the stubs into the environment of programs that are started."""
    stubs = str(Path(__file__).parent / "stub_stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (stubs, os.environ.get("PYTHONPATH")))))
        yield
