"""A registry that holds none of the models the tables tell of is told of; a lineage begun on purpose is not."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages.gate_record import record_results
from bahe_tasks.stages.lost_registry import warn_of_lost_registry
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import ExpectationResult
from bahe_tasks.stores.model_registry import connect

FIRST = date(2013, 9, 24)
PASSED = ExpectationResult("coverage", "passed", "1", "1")


@pytest.fixture
def config(tmp_path):
    return Config(home=tmp_path)


def judged(config, number, *, stage="validate_challenger"):
    """Record what the gate said of the version of a day."""
    day = FIRST + timedelta(days=number - 1)
    record_results(config, day, stage, [PASSED], model_version=number, input_fingerprint=f"f{number}")


def published(config, number, fingerprint):
    record = {str(number): {"input_fingerprint": "f", "counts": {"model": fingerprint}}}
    rows = arrow_schema("item_embeddings").empty_table()
    replace_partitions(config.tables_dir, "item_embeddings", rows, predicate="model_version = 0", partitions=record)


def registered(config, name, fingerprint):
    client = connect(config).client
    client.create_registered_model(name)
    client.create_model_version(name, source="/elsewhere", tags={"day": "2013-09-24", "input_fingerprint": fingerprint})


def told(config, caplog):
    caplog.clear()
    warn_of_lost_registry(connect(config), config)
    return caplog.text


def test_a_new_home_is_told_of_nothing(config, caplog):
    judged(config, 1, stage="validate_inputs")
    assert told(config, caplog) == ""


def test_a_registry_that_lost_the_models_that_were_judged_is_told_of(config, caplog):
    judged(config, 1)
    judged(config, 2)
    assert "models of 2 days up to 2013-09-25, and the registry holds none of them" in told(config, caplog)


def test_a_registry_with_models_of_other_homes_alone_is_told_of(config, caplog):
    judged(config, 1)
    published(config, 1, "ours")
    registered(config, "another home's", "theirs")
    assert "the registry holds none of them" in told(config, caplog)


@pytest.mark.parametrize("was_published", [True, False])
def test_a_lineage_begun_under_another_name_is_told_of_nothing(config, caplog, was_published):
    judged(config, 1)
    if was_published:
        published(config, 1, "ours")
    registered(config, "the name before", "ours")
    assert told(config, caplog) == ""
