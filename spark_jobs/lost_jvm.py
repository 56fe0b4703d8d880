"""What to do when Spark's JVM has ended while this process goes on: killed for lack of memory, most often.

Unusual: PySpark keeps a gateway to one JVM for the life of the process and has no public way to leave it; without this, every
later day of a backfill would fail on a refused connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import TimeoutExpired

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from bahe_tasks.error_chain import chain_of

_UNTIL_REAPED_S = 5.0
"""A JVM that is killed closes its connections some milliseconds before it has an exit code."""


class JvmLostError(RuntimeError):
    """Spark's JVM ended before the job did."""


@contextmanager
def jvm_must_last() -> Iterator[None]:
    """Raise `JvmLostError` instead of what a call into a JVM that has ended raises."""
    try:
        yield
    except Exception as error:
        code = _exit_code(wait_s=_UNTIL_REAPED_S) if _is_of_connection(error) else None
        if code is None:
            raise
        raise JvmLostError(
            f"Spark's JVM ended (exit code {code}) before the job did; code -9 or 137 is most often a machine out of memory: "
            "see spark.driver_memory. Run the day again: that completes what was written of it"
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


def _is_of_connection(error: Exception) -> bool:
    """Tell whether this error, or one it came from, is of the connection to the JVM."""
    of_connection = (Py4JError, ConnectionError, EOFError)
    return any(isinstance(e, of_connection) and not isinstance(e, Py4JJavaError) for e in chain_of(error))


def _exit_code(*, wait_s: float = 0.0) -> int | None:
    """Return the exit code of the JVM this process started, None where it runs or none was started."""
    process = getattr(SparkContext._gateway, "proc", None)  # none where the JVM was there first, as under spark-submit
    try:
        return None if process is None else process.wait(wait_s)
    except TimeoutExpired:
        return None
