from datetime import date

import pytest

from bahe_tasks.stores.fine_tune_runs import LOGGED_MODEL_TAG, ModelFilesNotFoundError, find_finished_run

D1, D2 = date(2013, 9, 24), date(2013, 9, 25)


def test_a_run_keeps_parameters_metrics_curves_and_tags(registry, log_run):
    run_id = log_run(registry, D1, "f1", params={f"p{i}": i for i in range(150)}, curves={"loss": [1.0, 0.5, 0.25]})
    run = registry.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (len(run.data.params), run.data.params["p149"]) == (150, "149")  # more than MLflow takes in one call
    assert run.data.metrics["auc"] == 0.6
    history = registry.client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert run.data.tags["day"] == "2013-09-24"
    assert run.data.tags["input_fingerprint"] == "f1"
    assert run.data.tags["code_revision"] == "abc"


def test_a_finished_run_is_found_by_day_and_fingerprint(registry, log_run):
    log_run(registry, D1, "f1")
    newest = log_run(registry, D1, "f1")
    assert find_finished_run(registry, day=D1, input_fingerprint="f1") == newest
    assert find_finished_run(registry, day=D2, input_fingerprint="f1") is None
    assert find_finished_run(registry, day=D1, input_fingerprint="f2") is None


def test_a_run_that_failed_on_the_way_is_not_found(registry, log_run):
    with pytest.raises(ValueError, match="no number"):
        log_run(registry, D1, "f1", metrics={"auc": "no number"})
    assert find_finished_run(registry, day=D1, input_fingerprint="f1") is None
    statuses = [run.info.status for run in registry.client.search_runs([registry.experiment_id])]
    assert statuses == ["FAILED"]


def test_a_folder_without_a_model_is_named_before_anything_is_logged(registry, log_run, tmp_path):
    with pytest.raises(ModelFilesNotFoundError, match="holds no model"):
        log_run(registry, D1, "f1", model_dir=tmp_path)
    assert registry.client.search_runs([registry.experiment_id]) == []


def test_a_killed_run_is_not_found(registry):
    tags = {"day": "2013-09-24", "input_fingerprint": "f1"}
    registry.client.create_run(registry.experiment_id, tags=tags)  # what a kill leaves behind: RUNNING for ever
    assert find_finished_run(registry, day=D1, input_fingerprint="f1") is None


def test_the_models_signature_names_embeddings_ids_and_columns(registry, log_run):
    import mlflow.models

    run = registry.client.get_run(log_run(registry, D1, "f1"))
    signature = mlflow.models.get_model_info(f"models:/{run.data.tags[LOGGED_MODEL_TAG]}").signature
    required = {column.name: column.required for column in signature.inputs}
    assert required == {
        "user_embedding": True,
        "item_embedding": True,
        "user_id": False,
        "item_id": False,
        "cat_genre": False,
        "num_price": False,
        "sums": False,
    }
    assert signature.outputs.input_names() == ["click_probability"]
