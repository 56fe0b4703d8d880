"""Impressions that a log ships again with a later day's."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.dedup_behaviors import dedup_behaviors

pytestmark = pytest.mark.spark
DAY = date(2024, 3, 10)
NEXT, AFTER = DAY + timedelta(days=1), DAY + timedelta(days=2)


def impression(number, day=DAY, **changes):
    row = {"impression_id": f"m{number}", "user_id": "u", "item_id": "i", "shown_at": f"{day}T12:00:00Z", "label": 1}
    return {**row, "label_known_at": f"{day}T13:00:00Z", "label_liked": 1, "num_position": number, **changes}


def counts_of(spark, plan):
    told = dedup_behaviors(spark, plan)["impressions"]
    assert told["landed"] == told["rows"] + told["duplicates"] + told["quarantined"]
    return {name: told[name] for name in ("landed", "rows", "duplicates", "quarantined", "reasons")}


def ids(tables_dir, day):
    rows = read_table(tables_dir, "impressions", partitions=f"dt = '{day}'").to_pylist()
    return sorted(row["impression_id"] for row in rows)


@pytest.mark.parametrize("is_small", [True, False])
def test_one_that_is_delivered_again_is_a_duplicate_and_one_that_contradicts_it_a_conflict(
    spark, landing, plan_of, tmp_path, is_small
):
    items = [{"item_id": "i", "title": "a title", "updated_at": f"{DAY}T00:00:00Z", "cat_kind": "of the item"}]
    landing.rows("items", DAY, items)
    landing.rows("impressions", DAY, [impression(1), impression(2), impression(3)])
    again = [impression(1), impression(1), impression(2, label=0), impression(3, label_liked=0)]
    landing.rows("impressions", NEXT, [*again, impression(4), impression(5, NEXT)])
    tables = tmp_path / "tables"
    assert counts_of(spark, plan_of(landing, tables, DAY, is_small=is_small))["rows"] == 3
    for _ in range(2):  # a day that is run again does not take its own rows for a day's before
        assert counts_of(spark, plan_of(landing, tables, NEXT, is_small=is_small)) == {
            "landed": 6,
            "rows": 2,
            "duplicates": 2,
            "quarantined": 2,
            "reasons": {"conflicting_impression": 2},
        }
        assert ids(tables, NEXT) == ["m4", "m5"]
    refused = read_table(tables, "quarantine", partitions=f"dt = '{NEXT}'").to_pylist()
    assert sorted(row["raw"].split('"impression_id":')[1][:5].strip(' "') for row in refused) == ["m2", "m3"]


def test_days_that_others_may_not_read_and_days_too_long_ago_have_none(spark, landing, plan_of, tmp_path):
    landing.rows("impressions", DAY, [impression(1), impression(2)])
    landing.rows("impressions", NEXT, [impression(1)])
    landing.rows("impressions", AFTER, [impression(1), impression(2)])
    tables = tmp_path / "tables"
    dedup_behaviors(spark, plan_of(landing, tables, DAY))
    assert counts_of(spark, plan_of(landing, tables, NEXT, excluded_days=frozenset({DAY})))["rows"] == 1
    assert counts_of(spark, plan_of(landing, tables, AFTER, excluded_days=frozenset({DAY})))["duplicates"] == 1
    assert ids(tables, AFTER) == ["m2"]
    assert counts_of(spark, plan_of(landing, tables, AFTER))["duplicates"] == 2
