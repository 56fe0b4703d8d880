"""The Spark session of the project: Delta on, UTC, ANSI casts, everything sized for one machine.

Unusual: when both Delta jars already lie in the Ivy cache they are given by path, which starts in half the time of
resolving them again; only a machine without them asks Maven Central. For one day the JVM stops at its first compiler
tier: the job ends before the optimising compiler has paid for itself, which it does after about four days.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import pyspark
from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

from bahe_tasks.config import SparkConfig
from bahe_tasks.java import java_command
from spark_jobs.class_archive import with_archive
from spark_jobs.lost_jvm import forget_lost_jvm

FOR_ONE_DAY = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of a JVM that runs one day."""
FOR_MANY_DAYS = "-XX:+UseSerialGC"
"""Options of a JVM that runs several days."""
_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",  # nothing but the quarantine's commit shuffles
    "spark.sql.ansi.enabled": "true",
    # An overwrite that leaves a partition empty is still the record that the partition was taken in.
    "spark.databricks.delta.skipRecordingEmptyCommits": "false",
    "spark.databricks.delta.snapshotPartitions": "2",
    # The files of a year of days are looked at by the driver: a job for it costs more on one machine.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "500",
    # Else a job for it has a task a file.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    # PySpark would look up the calling line for every column expression: half of all its calls into the JVM.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.driver.maxResultSize": "0",  # what comes to the driver is bounded by this project, in rows
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ON_ONE_MACHINE = {
    # A machine that slept for two minutes, or stopped the JVM as long, would make Spark think its only executor lost and end.
    "spark.network.timeout": "7d",
    # Its JVM finds itself whatever it is called; executors of other hosts would look for the driver on theirs.
    "spark.driver.host": "localhost",
    "spark.driver.bindAddress": "127.0.0.1",
}


class JavaMissingError(RuntimeError):
    """No Java runtime is there to run Spark."""


class DeltaJarsMissingError(RuntimeError):
    """The Delta jars are neither configured, nor cached, nor downloadable."""


def spark_session(config: SparkConfig, *, app_name: str) -> SparkSession:
    """Return the running Spark session, or start one; also where the JVM of the one that ran has ended.

    Raises `JavaMissingError` when no java is found, `DeltaJarsMissingError` when the Delta jars cannot be had.
    """
    forget_lost_jvm()
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    _require_java()
    # Else Spark's Python workers are whatever `python3` is on the path, without this project.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    jars = configured_jars(config.jars) if config.jars else cached_delta_jars()
    builder = SparkSession.builder.appName(app_name).master(config.master)
    for key, value in _settings(config).items():
        builder = builder.config(key, value)
    if jars:
        builder = builder.config("spark.jars", ",".join(jars))
    else:
        # Java takes the home folder from the user database, Python from HOME: both must mean the same cache.
        builder = configure_spark_with_delta_pip(builder).config("spark.jars.ivy", str(Path.home() / ".ivy2"))
    try:
        with _interrupt_held():
            spark = builder.getOrCreate()
    except Exception as error:
        if jars:
            raise
        raise DeltaJarsMissingError(
            "Spark did not start, most likely because the Delta jars could not be downloaded from Maven Central: "
            f"connect once, or set spark.jars in bahe.yaml to local copies of {' and '.join(_jar_names())}"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _settings(config: SparkConfig) -> dict[str, str]:
    return {
        **_SETTINGS,
        **(_ON_ONE_MACHINE if config.master.startswith("local") else {}),
        "spark.driver.memory": config.driver_memory,
        "spark.driver.extraJavaOptions": with_archive(config.jvm_options or FOR_ONE_DAY),
    }


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Let Ctrl-C wait until Spark has started: a JVM whose start is cut short stays behind, and ignores Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if held:  # the download of the jars may hang
            raise KeyboardInterrupt
        held.append(number)
        print("Spark is starting, and is ended once it has; Ctrl-C again ends at once", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hold:  # a session that has started left its own, which cancels jobs
            signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt


def stop_spark_session() -> None:
    """Stop the running Spark session and its JVM's work, if there is one."""
    forget_lost_jvm()
    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()


def cached_delta_jars() -> list[str]:
    """Return the paths of the two Delta jars in the Ivy cache of this user, or an empty list."""
    homes = sorted(Path.home().glob(".ivy2*"), reverse=True)
    found = [next((p for home in homes for p in sorted(home.rglob(f"*{name}"))), None) for name in _jar_names()]
    return [str(path) for path in found if path is not None] if all(found) else []


def configured_jars(jars: str) -> list[str]:
    """Return the paths that the setting spark.jars names. Raises `DeltaJarsMissingError` where one is not there."""
    paths = [part.strip() for part in jars.split(",") if part.strip()]
    missing = [path for path in paths if "://" not in path and not Path(path).is_file()]
    if missing:
        raise DeltaJarsMissingError(
            f"spark.jars names {', '.join(missing)}, which is not there: give local copies of {' and '.join(_jar_names())}, "
            "or leave spark.jars empty to have them downloaded"
        )
    return paths


def _jar_names() -> tuple[str, str]:
    spark_line = ".".join(pyspark.__version__.split(".")[:2])
    delta = version("delta-spark")
    return f"delta-spark_{spark_line}_2.13-{delta}.jar", f"delta-storage-{delta}.jar"


def _require_java() -> None:
    java_home = os.environ.get("JAVA_HOME")
    java = java_command(java_home)
    if java is None:
        raise JavaMissingError(
            "Spark needs Java 17 and no java was found: install it (for example `apt-get install openjdk-17-jre-headless`) or set JAVA_HOME"
        )
    if java_home and Path(java) != Path(java_home, "bin", "java"):
        del os.environ["JAVA_HOME"]  # Spark's launcher would look nowhere else, where `java_command` takes the PATH's
