"""A JVM that ends while the process goes on, in a process of its own: other tests share this one's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from threading import Timer
import pytest
from pyspark import SparkContext
from bahe_tasks.config import SparkConfig
from spark_jobs.lost_jvm import JvmLostError, jvm_must_last
from spark_jobs.session import spark_session, stop_spark_session

config = SparkConfig(driver_memory="1g")
with pytest.raises(JvmLostError, match="exit code -9"), jvm_must_last():
    first = spark_session(config, app_name="tests")
    Timer(1, SparkContext._gateway.proc.kill).start()
    for _ in range(10_000):
        first.range(3).count()
with jvm_must_last():
    again = spark_session(config, app_name="tests")
    assert again.range(3).count() == 3 and again is spark_session(config, app_name="tests")
with pytest.raises(KeyError), jvm_must_last():  # whatever else is raised stays what it is
    raise KeyError
SparkContext._gateway.proc.kill()
SparkContext._gateway.proc.wait()
stop_spark_session()
print("all of it")
"""


def test_a_session_starts_anew_where_its_jvm_was_killed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("all of it\n"), done.stderr
