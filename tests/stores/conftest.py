"""One MLflow database for all tests of the registry (making one takes seconds); each test has a model of its own."""

from datetime import date
from pathlib import Path

import pytest

from bahe_tasks.config import Config, RegistryConfig
from bahe_tasks.stores.fine_tune_runs import log_fine_tune_run
from bahe_tasks.stores.model_promotion import promote, record_gate, register
from bahe_tasks.stores.model_registry import Registry, connect


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home with space")


@pytest.fixture
def registry(mlflow_home, request) -> Registry:
    name = request.node.name.split("[")[0]
    return connect(Config(home=mlflow_home, registry=RegistryConfig(model_name=name)))


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model_spec.json").write_text('{"features": []}', encoding="utf-8")
    return folder


@pytest.fixture
def log_run(model_dir):
    """Log a small fine-tune of a day and return its run id."""

    def log(registry, day, fingerprint, **changes):
        given = {
            "params": {"epochs": 1},
            "metrics": {"auc": 0.6},
            "curves": {"train_loss": [0.7, 0.6]},
            "tags": {"code_revision": "abc"},
            "model_dir": model_dir,
            "cat_columns": ["genre"],
            "num_columns": ["price"],
        }
        return log_fine_tune_run(registry, day=day, input_fingerprint=fingerprint, **(given | changes))

    return log


@pytest.fixture(scope="session")
def finished_run(mlflow_home, model_dir) -> str:
    """A finished run that versions can be made of, where its content does not matter."""
    registry = connect(Config(home=mlflow_home, registry=RegistryConfig(model_name="finished_run")))
    return log_fine_tune_run(
        registry,
        day=date(2013, 9, 24),
        input_fingerprint="f",
        params={},
        metrics={},
        curves={},
        tags={},
        model_dir=model_dir,
        cat_columns=[],
        num_columns=[],
    )


@pytest.fixture
def add(registry, finished_run):
    """Register a version of a day, record its gate and try to promote it; return its number."""

    def add_version(day, fingerprint, gate="passed", parent=None):
        number = register(
            registry,
            finished_run,
            day=day,
            input_fingerprint=fingerprint,
            encoder_version="enc-1",
            parent=parent,
            tags={"seed": "17"},
        )
        if gate != "pending":
            record_gate(registry, number, gate, reason=f"gate said {gate}")
        promote(registry, number)
        return number

    return add_version
