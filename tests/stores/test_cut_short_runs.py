"""Of an attempt that failed or was killed no model stays; what a version points to does."""

from datetime import date

import pytest
from mlflow.tracking import MlflowClient

from bahe_tasks.config import Config, RegistryConfig
from bahe_tasks.stores.fine_tune_runs import LOGGED_MODEL_TAG, find_finished_run
from bahe_tasks.stores.model_promotion import register
from bahe_tasks.stores.model_registry import connect, local_model_folder

D1, D2 = date(2013, 9, 24), date(2013, 9, 25)


@pytest.fixture
def models(registry, mlflow_home):
    """The folders of models that are there now and were not when the test began, by name."""
    folder = mlflow_home / "mlflow" / "artifacts" / "models"
    before = set(folder.glob("*"))
    return lambda: {path.name for path in set(folder.glob("*")) - before}


def records(registry):
    return {model.model_id for model in registry.client.search_logged_models([registry.experiment_id])}


def statuses(registry):
    return sorted(run.info.status for run in registry.client.search_runs([registry.experiment_id]))


def killed_run(registry, log_run, day, monkeypatch):
    """Log a run but for its last step, as a kill before it would leave it; return the id of its model."""
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", lambda *_, **__: None)
        run_id = log_run(registry, day, "f1")
    return registry.client.get_run(run_id).data.tags[LOGGED_MODEL_TAG]


def test_of_a_run_that_fails_no_model_stays(registry, log_run, models, monkeypatch):
    def full(self, model_id, folder):
        kept(self, model_id, folder)
        assert model_id in models()
        raise OSError(28, "No space left on device")

    kept = MlflowClient.log_model_artifacts
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            log_run(registry, D1, "f1")
    assert models() == records(registry) == set()
    assert statuses(registry) == ["FAILED", "FAILED"]


def test_the_first_error_is_the_one_that_is_raised(registry, log_run, models, monkeypatch, caplog):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    def nor_that(self, *_, **__):
        raise RuntimeError("raised as a result of Query-invoked autoflush")

    monkeypatch.setattr(MlflowClient, "finalize_logged_model", full)
    monkeypatch.setattr(MlflowClient, "set_terminated", nor_that)
    monkeypatch.setattr(MlflowClient, "delete_logged_model", nor_that)
    with pytest.raises(OSError, match="No space left"):
        log_run(registry, D1, "f1")
    assert models() == set()
    assert "cannot be marked so: raised as a result" in caplog.text
    monkeypatch.undo()
    log_run(registry, D1, "f1")
    assert statuses(registry) == ["FINISHED", "KILLED"]
    assert len(records(registry)) == 1


def test_what_killed_attempts_of_the_day_left_goes_when_it_is_logged_again(registry, log_run, models, monkeypatch):
    finished = log_run(registry, D1, "f1")
    of_day = [killed_run(registry, log_run, D1, monkeypatch) for _ in range(2)]
    of_another = killed_run(registry, log_run, D2, monkeypatch)
    assert models() == records(registry) > {of_another}
    again = log_run(registry, D1, "f1")
    assert statuses(registry) == ["FINISHED", "FINISHED", "KILLED", "KILLED", "RUNNING"]
    kept = {registry.client.get_run(run_id).data.tags[LOGGED_MODEL_TAG] for run_id in (finished, again)}
    assert models() == records(registry) == {*kept, of_another}
    assert not models() & set(of_day)
    assert find_finished_run(registry, day=D1, input_fingerprint="f1") == again


@pytest.mark.parametrize("named_by", ["run", "source"])
def test_a_model_that_a_version_points_to_stays(registry, log_run, models, monkeypatch, mlflow_home, named_by):
    model_id = killed_run(registry, log_run, D1, monkeypatch)
    run_id = registry.client.get_logged_model(model_id).source_run_id
    other = connect(
        Config(home=mlflow_home, registry=RegistryConfig(model_name=f"registered by hand by its {named_by}"))
    )
    other.client.create_registered_model(other.model_name)
    by = {"source": "/elsewhere", "run_id": run_id} if named_by == "run" else {"source": f"models:/{model_id}"}
    other.client.create_model_version(other.model_name, **by)
    log_run(registry, D1, "f1")
    assert model_id in models() & records(registry)


def test_a_version_of_a_day_logged_again_is_read_as_before(registry, log_run):
    lineage = {"day": D1, "input_fingerprint": "f1", "encoder_version": "e", "parent": None, "tags": {}}
    number = register(registry, log_run(registry, D1, "f1"), **lineage)
    log_run(registry, D1, "f1")
    assert (local_model_folder(registry, number) / "model.safetensors").read_bytes() == b"weights"
