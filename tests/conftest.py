"""Fixtures that more than one package's tests need."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def spark():
    """One Spark session for the whole test run: starting a JVM is what costs."""
    from bahe_tasks.config import SparkConfig
    from spark_jobs.session import spark_session, stop_spark_session

    yield spark_session(SparkConfig(driver_memory="1g", shuffle_partitions=1), app_name="tests")
    stop_spark_session()
