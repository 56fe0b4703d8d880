"""Keeps the tests away from the Airflow and the home folder of whoever runs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

AIRFLOW_HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Airflow writes its settings file on import, so its folder is chosen before any test module is."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "BAHE_")) and name != "BAHE_SHARED"]:
        del os.environ[name]
    config.stash[AIRFLOW_HOME] = os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="bahe-test-airflow-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[AIRFLOW_HOME], ignore_errors=True)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread, and on a busy machine lose much by waiting for it."""
    import torch  # not for tests that do without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
