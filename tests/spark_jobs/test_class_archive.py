"""A JVM starts from the archive of its classes, or without; half an archive is never found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spark_jobs import class_archive
from spark_jobs.class_archive import ArchiveError, archive_file, make_archive, with_archive

_MAPPED = """
from pathlib import Path
from bahe_tasks.config import SparkConfig
from spark_jobs.session import spark_session
spark = spark_session(SparkConfig(), app_name="tests")
print(".jsa" in Path(f"/proc/{spark.sparkContext._gateway.proc.pid}/maps").read_text().replace("classes.jsa", ""))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def archive(cache):
    file = archive_file()
    file.parent.mkdir()
    file.touch()
    return file


def test_without_an_archive_the_options_are_as_they_are(cache):
    assert with_archive("-Xmx1g") == "-Xmx1g"


def test_options_with_an_archive(archive):
    assert with_archive("-Xmx1g").startswith(f"-XX:SharedArchiveFile={archive} ")
    assert with_archive("-Xmx1g").endswith(" -Xmx1g")
    assert with_archive("-XX:SharedArchiveFile=own.jsa") == "-XX:SharedArchiveFile=own.jsa"


def test_a_name_that_spark_would_part_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    file = archive_file()
    file.parent.mkdir(parents=True)
    file.touch()
    assert with_archive("-Xmx1g") == "-Xmx1g"


def test_another_java_has_another_archive(tmp_path, monkeypatch):
    found = archive_file()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert archive_file() != found


def test_without_java_there_is_none(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert with_archive("-Xmx1g") == "-Xmx1g"
    with pytest.raises(ArchiveError, match="no java"):
        make_archive()


def test_jars_installed_anew_have_another_archive(tmp_path, monkeypatch):
    (tmp_path / "jars").mkdir()
    jar = tmp_path / "jars" / "spark.jar"
    jar.touch()
    monkeypatch.setattr(class_archive.pyspark, "__file__", str(tmp_path / "__init__.py"))
    found = archive_file()
    os.utime(jar, ns=(0, 0))
    assert archive_file() != found


def test_of_an_archive_that_no_jvm_starts_with_nothing_is_left(cache, monkeypatch):
    def start(options: str) -> None:
        if "SharedArchiveFile" in options:
            raise ArchiveError("it does not fit")
        Path(options.partition("=")[2]).write_bytes(b"half")

    monkeypatch.setattr(class_archive, "_start_spark", start)
    with pytest.raises(ArchiveError, match="does not fit"):
        make_archive()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_archives_that_no_session_started_with_for_a_month_are_deleted(archive, monkeypatch):
    monkeypatch.setattr(
        class_archive, "_start_spark", lambda options: Path(options.split("=")[1].split()[0]).write_bytes(b"whole")
    )
    gone, killed, used = (archive.with_name(f"spark-{name}") for name in ("gone.jsa", "killed.123", "used.jsa"))
    for file in (gone, killed, used, archive):
        file.write_bytes(b"old")
        os.utime(file, (0, 0))
    os.utime(used)
    archive.unlink()
    assert make_archive() == archive
    assert sorted(archive.parent.iterdir()) == sorted([archive, used])


def test_starting_with_an_archive_is_use_of_it(archive):
    os.utime(archive, (0, 0))
    with_archive("-Xmx1g")
    assert archive.stat().st_mtime > 0


def test_a_session_maps_the_archive_that_was_made_and_prints_nothing_where_it_does_not_fit(cache):
    archive = archive_file()
    archive.parent.mkdir()
    archive.write_bytes(b"of another Java")

    def told():
        return subprocess.run([sys.executable, "-c", _MAPPED], capture_output=True, text=True, check=True).stdout

    assert told() == "False\n"
    assert make_archive() == archive
    assert told() == "True\n"
