"""Published embeddings belong to a model, not to its number."""

from __future__ import annotations

from datetime import date

import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages.publish_embeddings import published_record
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.promotion_rules import ModelVersion


@pytest.fixture
def config(tmp_path):
    return Config(home=tmp_path)


def version(number, fingerprint):
    return ModelVersion(number, date(2024, 1, 1), fingerprint, run_id="r", encoder_version="e")


TABLES = ("published_sums", "user_embeddings", "item_embeddings")


def record(config, partitions, *, tables=TABLES):
    for name in tables:
        rows = arrow_schema(name).empty_table()
        replace_partitions(config.tables_dir, name, rows, predicate="model_version = 3", partitions=partitions)


def test_nothing_is_published_before_the_first_time(config):
    assert published_record(version(3, "model"), config) is None


def test_a_model_of_the_same_number_in_another_lineage_is_not_published(config):
    record(config, {"3": {"input_fingerprint": "f", "counts": {"users": 2, "items": 1, "model": "model"}}})
    assert published_record(version(3, "model"), config).counts["users"] == 2
    assert published_record(version(3, "model of another lineage"), config) is None


def test_a_version_whose_rows_were_deleted_is_not_published(config):
    record(config, {"3": {"input_fingerprint": "f", "counts": {"users": 2, "items": 1, "model": "model"}}})
    record(config, {"4": {"input_fingerprint": "g", "counts": {"model": "next"}}, "3": {"input_fingerprint": ""}})
    assert published_record(version(3, "model"), config) is None
    assert published_record(version(4, "next"), config) is not None


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_version_whose_publishing_was_killed_is_not_published(config, killed_after):
    record(config, {"3": {"input_fingerprint": "f", "counts": {"model": "model"}}})
    record(config, {"3": {"input_fingerprint": "g", "counts": {"model": "model"}}}, tables=TABLES[:killed_after])
    assert published_record(version(3, "model"), config) is None
    record(config, {"3": {"input_fingerprint": "g", "counts": {"model": "model"}}}, tables=TABLES[killed_after:])
    assert published_record(version(3, "model"), config).input_fingerprint == "g"
