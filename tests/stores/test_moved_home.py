"""A home that was moved or copied has its own models, wherever the database says they lay."""

import shutil
from dataclasses import replace
from datetime import date

import pytest

from bahe_tasks.config import Config, RegistryConfig
from bahe_tasks.stores.model_promotion import record_gate, register
from bahe_tasks.stores.model_registry import connect, local_model_folder, version_of

D1, D2 = date(2013, 9, 24), date(2013, 9, 25)
NAME = RegistryConfig(model_name="moved")


def add(home, day, log_run):
    registry = connect(Config(home=home, registry=NAME))
    run_id = log_run(registry, day, f"f{day}")
    number = register(registry, run_id, day=day, input_fingerprint=f"f{day}", encoder_version="e", parent=None, tags={})
    record_gate(registry, number, "passed")
    return number


@pytest.mark.parametrize("moved", [shutil.move, shutil.copytree])
def test_models_are_read_and_written_where_the_home_is_now(tmp_path, log_run, caplog, moved):
    old, new = tmp_path / "old home", tmp_path / "new home"
    first = add(old, D1, log_run)
    files_there = sorted(old.rglob("*.safetensors"))
    moved(old, new)
    registry = connect(Config(home=new, registry=NAME))
    assert local_model_folder(registry, first).is_relative_to(new)
    assert (local_model_folder(registry, first) / "model.safetensors").read_bytes() == b"weights"
    second = add(new, D2, log_run)
    assert f"models lie in {(new / 'mlflow' / 'artifacts').as_uri()}" in caplog.text
    run = registry.client.get_run(version_of(registry, first).run_id)
    assert run.info.artifact_uri.startswith((new / "mlflow" / "artifacts").as_uri())
    assert local_model_folder(registry, second).is_relative_to(new)
    assert sorted(old.rglob("*.safetensors")) == (files_there if moved is shutil.copytree else [])


def test_reading_a_home_under_another_path_moves_nothing_under_a_run(tmp_path, log_run, caplog):
    home, other_path = tmp_path / "home", tmp_path / "mounted"
    first = add(home, D1, log_run)
    other_path.symlink_to(home)  # resolved to the same place: the database is opened as if it lay elsewhere
    under_way = connect(Config(home=home, registry=NAME))
    read = replace(under_way, artifacts=(other_path / "mlflow" / "artifacts").as_uri())
    assert local_model_folder(read, first).is_relative_to(other_path)
    assert (local_model_folder(read, first) / "model.safetensors").is_file()
    second = add(home, D2, log_run)
    assert local_model_folder(under_way, second).is_relative_to(home)
    assert "moved" not in caplog.text
    read.follow_home()
    assert local_model_folder(connect(Config(home=home, registry=NAME)), second).is_relative_to(home)
    assert "moved" in caplog.text


def test_a_home_that_stays_is_left_as_it_is(tmp_path, log_run, caplog):
    add(tmp_path, D1, log_run)
    connect(Config(home=tmp_path, registry=NAME))
    assert "moved" not in caplog.text


@pytest.mark.parametrize("chosen", ["s3://bucket/mlflow/artifacts", "file:///mnt/models"])
def test_an_address_that_somebody_chose_stays(tmp_path, chosen):
    config = Config(home=tmp_path, registry=NAME)
    connect(config).client.create_experiment("chosen", chosen)
    registry = connect(Config(home=tmp_path, registry=RegistryConfig(model_name="chosen")))
    registry.follow_home()
    assert registry.client.get_experiment_by_name("chosen").artifact_location == chosen


def test_models_that_a_copy_wrote_into_the_original_are_still_found(tmp_path, log_run):
    old, new = tmp_path / "old", tmp_path / "new"
    add(old, D1, log_run)
    shutil.copytree(old, new)
    number = add(old, D2, log_run)  # as a copy did before: its database, the original's folder
    shutil.copy(old / "mlflow" / "mlflow.db", new / "mlflow" / "mlflow.db")
    registry = connect(Config(home=new, registry=NAME))
    assert local_model_folder(registry, number).is_relative_to(old)
    assert (local_model_folder(registry, number) / "model.safetensors").is_file()
    assert local_model_folder(registry, 1).is_relative_to(new)
