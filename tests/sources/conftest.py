"""One clean and one flawed synthetic log, made once: 3 days, 300 users."""

from __future__ import annotations

from pathlib import Path

import pytest

from bahe_tasks.sources.synthetic import SyntheticCounts, synthesize

DAYS, USERS = 3, 300


@pytest.fixture(scope="session")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticCounts]:
    landing = tmp_path_factory.mktemp("flawed")
    return landing, synthesize(landing, days=DAYS, users=USERS, seed=5, flaw_share=0.02)


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticCounts]:
    landing = tmp_path_factory.mktemp("clean")
    return landing, synthesize(landing, days=DAYS, users=USERS, seed=5, flaw_share=0.0)
