"""A machine that cannot run Spark is told so in one sentence."""

from __future__ import annotations

import os
import signal

import pytest

from bahe_tasks.config import SparkConfig
from spark_jobs import session


@pytest.fixture
def no_session(monkeypatch):
    """As in a fresh process."""
    monkeypatch.setattr(session.SparkSession, "getActiveSession", staticmethod(lambda: None))


def test_a_missing_java_is_named(no_session, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(session.JavaMissingError, match="Java 17"):
        session.spark_session(SparkConfig(), app_name="tests")


def test_a_java_home_without_java_is_left_out_and_one_with_it_stays(no_session, monkeypatch, tmp_path):
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(java.parent))
    for java_home, told in ((tmp_path / "jdk", str(tmp_path / "jdk")), (tmp_path / "gone", None)):
        monkeypatch.setenv("JAVA_HOME", str(java_home))
        with pytest.raises(session.DeltaJarsMissingError):  # before Spark starts
            session.spark_session(SparkConfig(jars="/nowhere/delta.jar"), app_name="tests")
        assert os.environ.get("JAVA_HOME") == told


def test_a_configured_jar_that_is_not_there_is_named(no_session, monkeypatch):
    monkeypatch.setattr(session, "_require_java", lambda: None)
    with pytest.raises(session.DeltaJarsMissingError, match=r"/nowhere/delta\.jar"):
        session.spark_session(SparkConfig(jars="/nowhere/delta.jar"), app_name="tests")


@pytest.mark.parametrize(
    ("master", "host"), [("local[2]", "localhost"), ("spark://a:7077", None), ("k8s://https://a", None), ("yarn", None)]
)
def test_executors_of_other_hosts_are_not_told_to_find_the_driver_on_their_own(master, host, monkeypatch):
    monkeypatch.setattr(session, "with_archive", lambda options: options)
    settings = session._settings(SparkConfig(master=master))
    assert settings.get("spark.driver.host") == host
    assert ("spark.driver.bindAddress" in settings) == (host is not None)


@pytest.mark.parametrize("end", ["started", "failed"])
def test_ctrl_c_waits_until_spark_has_started(end):
    ends = []

    def start():
        with session._interrupt_held():
            signal.raise_signal(signal.SIGINT)
            ends.append(end)
            if end == "failed":
                raise RuntimeError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert (ends, signal.getsignal(signal.SIGINT)) == ([end], before)


def test_ctrl_c_again_does_not_wait_for_a_spark_that_never_starts(capsys):
    waited = []

    def start():
        with session._interrupt_held():
            signal.raise_signal(signal.SIGINT)
            assert "Ctrl-C again ends at once" in capsys.readouterr().err
            signal.raise_signal(signal.SIGINT)
            waited.append(True)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert (waited, signal.getsignal(signal.SIGINT)) == ([], before)


def test_the_handler_that_a_started_spark_leaves_is_kept():
    def of_spark(*_):
        """PySpark's, which cancels jobs."""

    before = signal.getsignal(signal.SIGINT)
    try:
        with session._interrupt_held():
            signal.signal(signal.SIGINT, of_spark)
        assert signal.getsignal(signal.SIGINT) is of_spark
    finally:
        signal.signal(signal.SIGINT, before)


def test_cached_jars_are_used_only_when_both_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(session.Path, "home", staticmethod(lambda: tmp_path))
    cache = tmp_path / ".ivy2.5.2" / "jars"
    cache.mkdir(parents=True)
    spark_jar, storage_jar = session._jar_names()
    (cache / f"io.delta_{spark_jar}").touch()
    assert session.cached_delta_jars() == []
    (cache / f"io.delta_{storage_jar}").touch()
    assert session.cached_delta_jars() == [str(cache / f"io.delta_{spark_jar}"), str(cache / f"io.delta_{storage_jar}")]
