import subprocess
import sys
from datetime import date

import pytest

from bahe_tasks.config import Config, RegistryConfig
from bahe_tasks.stores import model_registry
from bahe_tasks.stores.model_promotion import (
    RegistrationError,
    record_gate,
    register,
    rollback,
)
from bahe_tasks.stores.model_registry import (
    VersionNotFoundError,
    aliases,
    champion,
    connect,
    local_model_folder,
    parent_of,
    tags_of_all_versions,
    version_of,
    versions,
)
from bahe_tasks.stores.promotion_rules import eligible, parent_for, stale

D1, D2, D3 = date(2013, 9, 24), date(2013, 9, 25), date(2013, 9, 26)


def test_tags_of_all_versions_are_those_of_other_lineages_too(add, registry, mlflow_home):
    number = add(D1, "of this lineage")
    other = connect(Config(home=mlflow_home, registry=RegistryConfig(model_name="a lineage begun later")))
    assert versions(other) == []
    assert version_of(registry, number).tags in tags_of_all_versions(other)


def champion_number(registry):
    found = champion(registry)
    return found and found.version


def test_a_registry_nobody_wrote_to_is_empty(registry):
    assert versions(registry) == []
    assert champion(registry) is None


def test_a_version_carries_its_lineage_and_is_the_challenger(registry, add):
    parent = version_of(registry, add(D1, "f1"))
    made = version_of(registry, add(D2, "f2", gate="pending", parent=parent))
    assert (made.day, made.fingerprint, made.encoder_version, made.gate) == (D2, "f2", "enc-1", "pending")
    assert (made.parent_version, made.parent_fingerprint) == (parent.version, "f1")
    assert made.tags["seed"] == "17"
    assert aliases(registry) == {"champion": parent.version, "challenger": made.version}
    add(D1, "f1")  # an older day run again is no newer version
    assert aliases(registry)["challenger"] == made.version


def test_registering_the_same_fingerprint_again_makes_no_second_version(registry, add):
    assert add(D1, "f1") == add(D1, "f1")
    assert len(versions(registry)) == 1


def test_a_forced_run_becomes_a_version_of_its_own_once(registry, add, log_run):
    first = add(D1, "f1")
    run_id = log_run(registry, D1, "f1")
    lineage = {"day": D1, "input_fingerprint": "f1", "encoder_version": "enc-1", "parent": None, "tags": {}}
    forced = register(registry, run_id, **lineage, force=True)
    assert forced != first
    assert register(registry, run_id, **lineage, force=True) == forced


def test_a_run_that_is_not_finished_cannot_be_registered(registry):
    run = registry.client.create_run(registry.experiment_id)
    with pytest.raises(RegistrationError, match="RUNNING"):
        register(
            registry,
            run.info.run_id,
            day=D1,
            input_fingerprint="f1",
            encoder_version="e",
            parent=None,
            tags={},
        )
    assert versions(registry) == []


def test_a_version_without_fingerprint_does_not_exist(registry, add):
    number = add(D1, "f1")
    stray = registry.client.create_model_version(registry.model_name, source="/nowhere", tags={"day": "2013-09-25"})
    assert [v.version for v in versions(registry)] == [number]
    with pytest.raises(VersionNotFoundError):
        version_of(registry, int(stray.version))


def test_versions_beyond_one_page_are_found(registry, add, monkeypatch):
    monkeypatch.setattr(model_registry, "_PAGE", 2)
    numbers = [add(D1, f"f{i}", gate="pending") for i in range(5)]
    assert [v.version for v in versions(registry)] == numbers


def test_the_champion_follows_the_days_and_a_refused_version_leaves_it(registry, add):
    first = add(D1, "f1")
    add(D2, "f2", gate="refused")
    assert champion_number(registry) == first
    third = add(D3, "f3")
    assert champion_number(registry) == third
    assert parent_for(versions(registry), D3).version == first


def test_versions_of_a_tag_are_those_that_have_it(registry, add):
    first, second = add(D1, "f1"), add(D2, "f2")
    assert [v.version for v in versions(registry, day=str(D1))] == [first]
    assert [v.version for v in versions(registry, input_fingerprint="f2")] == [second]
    assert versions(registry, day=str(D1), input_fingerprint="f2") == []


def test_the_parent_of_a_day_is_that_of_all_versions_however_long_before(registry, add):
    add(D1, "f1")
    add(D2, "f2", gate="refused")
    add(D3, "f3")
    add(D3, "f3b")
    days = [D1, D2, D3, date(2013, 9, 27), date(2013, 12, 31)]
    assert [parent_of(registry, day) for day in days] == [parent_for(versions(registry), day) for day in days]
    assert parent_of(registry, D1) is None
    assert parent_of(registry, days[-1]).fingerprint == "f3b"


def test_the_parent_is_found_among_the_days_just_before(registry, add, monkeypatch):
    add(D1, "f1")
    asked = []
    search = registry.client.search_model_versions
    monkeypatch.setattr(
        registry.client, "search_model_versions", lambda text, **how: asked.append(text) or search(text, **how)
    )
    assert parent_of(registry, D3).day == D1
    assert all("tags.day" in text for text in asked)


def test_a_backfilled_older_day_never_takes_the_champion(registry, add):
    newest = add(D3, "f3")
    add(D1, "f1")
    assert champion_number(registry) == newest
    assert parent_for(versions(registry), D3).day == D1


def test_a_new_version_of_a_day_supersedes_the_old_and_makes_its_children_stale(registry, add):
    old = version_of(registry, add(D1, "f1"))
    child = add(D2, "f2", parent=old)
    new = add(D1, "f1b")
    known = versions(registry)
    assert [v.version for v in known if v.superseded] == [old.version]
    assert parent_for(known, D2).version == new
    assert stale(known) == {child}
    assert champion_number(registry) == child


def test_a_refused_version_supersedes_nothing(registry, add):
    first = add(D1, "f1")
    add(D1, "f1b", gate="refused")
    assert parent_for(versions(registry), D2).version == first
    assert version_of(registry, first).superseded is False


def test_passing_an_older_version_again_makes_it_the_one_of_its_day(registry, add):
    first, second = add(D1, "f1"), add(D1, "f1b")
    record_gate(registry, first, "passed")
    assert parent_for(versions(registry), D2).version == first
    assert version_of(registry, second).superseded is True


def test_passing_a_withdrawn_version_again_does_not_bring_it_back(registry, add):
    first, withdrawn = add(D1, "f1"), add(D2, "f2")
    rollback(registry, to=first, reason="bad")
    new = add(D2, "f2b")
    record_gate(registry, withdrawn, "passed")
    assert parent_for(versions(registry), D3).version == new


def test_a_pass_taken_back_leaves_the_version_that_stands_for_the_day_alone(registry, add):
    _, second, third = add(D1, "f1"), add(D1, "f1b"), add(D1, "f1c")
    record_gate(registry, second, "refused", reason="stricter")
    assert [v.version for v in eligible(versions(registry))] == [third]


def test_a_pass_taken_back_gives_the_day_to_the_version_before(registry, add):
    first, second = add(D1, "f1"), add(D1, "f1b")
    record_gate(registry, second, "errored", reason="no numbers")
    assert parent_for(versions(registry), D2).version == first
    assert version_of(registry, second).reason == "no numbers"


def test_the_files_of_a_local_model_are_read_where_they_lie(registry, add):
    folder = local_model_folder(registry, add(D1, "f1"))
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "model_spec.json"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


@pytest.fixture
def remote(registry, monkeypatch):
    """The registry, with artifacts that seem to lie on a server."""
    ask = registry.client.get_model_version_download_uri
    monkeypatch.setattr(
        registry.client,
        "get_model_version_download_uri",
        lambda name, version: ask(name, version).replace("file:", "mlflow-artifacts:"),
    )
    return registry


def test_the_files_of_a_remote_model_are_fetched_once(remote, add):
    number = add(D1, "f1")
    folder = local_model_folder(remote, number)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    (folder / "mark").touch()
    assert (local_model_folder(remote, number) / "mark").exists()
    assert [path.name for path in (remote.folder / "downloads").iterdir()] == [folder.parent.name]


def test_a_remote_model_made_anew_under_the_same_number_is_fetched_again(remote, add, log_run, tmp_path):
    number = add(D1, "f1")
    before = local_model_folder(remote, number)
    remote.client.delete_registered_model(remote.model_name)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    (tmp_path / "model_spec.json").write_text("{}")
    run_id = log_run(remote, D1, "f2", model_dir=tmp_path)
    lineage = {"day": D1, "input_fingerprint": "f2", "encoder_version": "enc-1", "parent": None, "tags": {}}
    assert register(remote, run_id, **lineage) == number
    assert (local_model_folder(remote, number) / "model.safetensors").read_bytes() == b"other weights"
    assert (before / "model.safetensors").read_bytes() == b"weights"


def test_processes_that_meet_an_empty_home_at_once_share_one_database(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bahe_tasks.config import Config;"
        "from bahe_tasks.stores.model_registry import connect;"
        "print(connect(Config(home=Path(sys.argv[1]))).experiment_id)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(found) == 1


def test_the_database_and_the_artifacts_lie_in_the_home_folder(registry, mlflow_home):
    assert (mlflow_home / "mlflow" / "mlflow.db").is_file()
    location = registry.client.get_experiment(registry.experiment_id).artifact_location
    assert location == (mlflow_home / "mlflow" / "artifacts").as_uri()
    assert registry.tracking_uri == Config(home=mlflow_home).tracking_uri


def test_the_pages_say_where_a_version_comes_from_and_what_the_gate_said(registry, add):
    first = add(D1, "f1")
    second = add(D2, "f2", gate="refused", parent=version_of(registry, first))

    def description(version):
        return registry.client.get_model_version(registry.model_name, str(version)).description

    assert description(first) == f"{D1}, trained from pre-trained weights. Gate passed: gate said passed"
    assert description(second) == f"{D2}, trained from version {first}. Gate refused: gate said refused"
    record_gate(registry, second, "passed")
    assert description(second) == f"{D2}, trained from version {first}. Gate passed."
    assert "champion" in registry.client.get_registered_model(registry.model_name).description
