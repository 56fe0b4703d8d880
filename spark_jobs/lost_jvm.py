"""What to do when Spark's JVM has ended while this process goes on: killed for lack of memory, most often.

Unusual: PySpark keeps a gateway to one JVM for the life of the process and has no public way to leave it; without this, every
later day of a backfill would fail on a refused connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import SparkContext
from pyspark.sql import SparkSession


class JvmLostError(RuntimeError):
    """Spark's JVM ended before the job did."""


@contextmanager
def jvm_must_last() -> Iterator[None]:
    """Raise `JvmLostError` instead of what a call into a JVM that has ended raises, or waits for."""
    try:
        yield
    except Exception as error:
        code = _exit_code()
        if code is None:
            raise
        raise JvmLostError(
            f"Spark's JVM ended (exit code {code}) before the job did; code -9 or 137 is most often a machine out of memory: "
            "see spark.driver_memory. The day's tables are as they were: run it again"
        ) from error


def forget_lost_jvm() -> None:
    """Let PySpark start a JVM anew where the one it had has ended; do nothing where it runs or none was started."""
    gateway, context = SparkContext._gateway, SparkContext._active_spark_context
    if gateway is None or _exit_code() is None:
        return
    if context is not None:
        context._jsc = None  # nothing is left there to be stopped
        context.stop()
    gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    SparkSession._instantiatedSession = SparkSession._activeSession = None


def _exit_code() -> int | None:
    """Return the exit code of the JVM this process started, None where it runs or none was started."""
    gateway = SparkContext._gateway
    process = getattr(gateway, "proc", None)  # none where the JVM was there first, as under spark-submit
    return None if process is None else process.poll()
