"""What the doctor says of a machine, and that every fault comes with what mends it."""

from __future__ import annotations

import os
from collections import namedtuple

import pytest
from typer.testing import CliRunner

from bahe_tasks import doctor
from bahe_tasks.cli import app
from bahe_tasks.config import Config, EncoderConfig, SparkConfig


def a_java(folder, says):
    """Make a java that answers `-version` as the real one does, on standard error."""
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("says", "ok"),
    [
        ('openjdk version "17.0.15" 2025-04-15', True),
        ('openjdk version "21" 2023-09-19', True),
        ('openjdk version "11.0.2" 2019-01-15', False),
        ('java version "1.8.0_381"', False),
        ("no such thing", False),
    ],
)
def test_java_must_be_17_or_newer(tmp_path, says, ok):
    check = doctor.check_java(a_java(tmp_path / "jdk", says))
    assert check.ok is ok
    assert ("openjdk-17" in check.command) is not ok


def test_a_missing_java_is_one_sentence_and_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_java(None)
    assert (check.ok, check.command) == (False, "sudo apt-get install -y openjdk-17-jre-headless")
    assert "no java was found" in check.sentence


def test_a_java_home_without_java_falls_back_to_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.join(a_java(tmp_path / "jdk", 'openjdk version "17.0.1"'), "bin"))
    assert doctor.check_java(str(tmp_path / "gone")).ok


@pytest.mark.parametrize(("available_gb", "ok"), [(3.9, False), (4.0, True)])
def test_four_gigabytes_of_memory_are_needed(available_gb, ok):
    check = doctor.check_memory(available_gb)
    assert check.ok is ok
    assert bool(check.command) is not ok


def test_the_memory_of_this_machine_can_be_read():
    assert 0.01 < doctor.available_memory_gb() < 100_000


def test_page_cache_of_a_container_is_not_taken_for_used(tmp_path):
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("49000000\n")
    (tmp_path / "memory.stat").write_text("anon 9000000\nfile 40000000\ninactive_file 39000000\n")
    assert doctor.available_memory_gb(tmp_path) == 0.04


def test_a_program_of_another_machine_is_one_that_does_not_run(tmp_path, monkeypatch):
    for tool in (tmp_path / "nvidia-smi", tmp_path / "bin" / "java"):
        tool.parent.mkdir(exist_ok=True)
        tool.write_bytes(b"\x7fELF of another processor")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "does not run; Spark needs Java 17" in doctor.check_java(str(tmp_path)).sentence
    assert "no GPU was found" in doctor.check_gpu(EncoderConfig()).sentence


def test_a_driver_that_fails_is_no_gpu(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = doctor.check_gpu(EncoderConfig(device="cuda"))
    assert not check.ok
    assert "no GPU was found" in check.sentence


def test_disk_is_measured_where_the_home_folder_will_be(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    asked = []
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: asked.append(path) or usage(0, 0, 1_900_000_000))
    check = doctor.check_disk(tmp_path / "not" / "yet")
    assert asked == [tmp_path]
    assert not check.ok
    assert "1.9 GB are free" in check.sentence


def test_a_home_folder_in_which_no_file_can_be_made_is_told(tmp_path):
    assert doctor.check_home(tmp_path).ok
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    check = doctor.check_home(tmp_path / "file")
    assert not check.ok
    assert "file cannot be written (Not a directory)" in check.sentence


def test_a_package_in_another_version_or_missing_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["rich == 0.1", "no-such-package", "pytest; extra == 'dev'"])
    check = doctor.check_packages()
    assert not check.ok
    assert "rich is " in check.sentence
    assert "no-such-package is missing" in check.sentence
    assert "pytest" not in check.sentence


def test_configured_delta_jars_must_be_there(tmp_path):
    jar = tmp_path / "delta.jar"
    missing = doctor.check_delta_jars(SparkConfig(jars=str(jar)), java_ok=True)
    assert not missing.ok
    assert str(jar) in missing.sentence
    jar.touch()
    assert doctor.check_delta_jars(SparkConfig(jars=str(jar)), java_ok=True).ok
    assert doctor.check_delta_jars(SparkConfig(jars=f"{jar}, "), java_ok=True).ok  # Spark starts with it too


def test_a_checkpoint_that_is_not_there_is_a_fault(tmp_path):
    assert not doctor.check_checkpoint(EncoderConfig(checkpoint=str(tmp_path / "none"))).ok


def test_a_missing_gpu_is_a_fault_only_where_one_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_gpu(EncoderConfig()).ok
    assert not doctor.check_gpu(EncoderConfig(device="cuda")).ok


def test_every_check_that_fails_says_how_to_mend_it(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory_gb", lambda: 1.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    spark, encoder = SparkConfig(jars="/none.jar"), EncoderConfig(checkpoint="/none", device="cuda")
    checks = doctor.run_checks(tmp_path, Config(home=tmp_path, spark=spark, encoder=encoder))
    faults = {check.name for check in checks if not check.ok}
    assert faults == {"java", "memory", "delta jars", "checkpoint", "gpu"}
    assert all(check.command for check in checks if not check.ok)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_answer_stands_on_stdout_unwrapped(options, tmp_path, monkeypatch):
    sentence = "a sentence of more words than a line holds, " * 5 + "[all] of it"
    monkeypatch.setattr(doctor, "run_checks", lambda *_: [doctor.Check("disk", False, sentence, "free it")])
    answer = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path), *options])
    assert (answer.exit_code, answer.stderr) == (1, "")
    assert sentence in answer.stdout
    assert "free it" in answer.stdout


def test_a_home_folder_that_is_not_there_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("check_packages", "check_delta_jars", "check_checkpoint", "check_java"):
        monkeypatch.setattr(doctor, name, lambda *_, **__: doctor.Check("", True, ""))
    gone = CliRunner().invoke(app, ["doctor", "--home", "~/gone"])
    assert f"home folder: {tmp_path}/gone/bahe.yaml does not exist" in gone.stdout
    (tmp_path / "bahe.yaml").touch()
    assert f"home folder: {tmp_path} can be written" in CliRunner().invoke(app, ["doctor", "--home", "~"]).stdout
