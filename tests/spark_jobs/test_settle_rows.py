"""Many events are settled as few are, though only their hashes are grouped."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from spark_jobs import settle_rows
from spark_jobs.settle_rows import settle_events

pytestmark = pytest.mark.spark

DAY, NEXT = date(2024, 3, 10), date(2024, 3, 11)
AT = datetime(2024, 3, 10, 8, tzinfo=UTC)
SCHEMA = (
    "dt date, user_id string, feature string, occurred_at timestamp, text string, item_id string, value double, "
    "reason string, source_file string, raw string"
)


def good(text, *, dt=DAY, item=None, value=None):
    return (dt, "u", "bills", AT, text, item, value, None, "f", None)


def refused(raw):
    return (DAY, None, "bills", AT, "tea", None, None, "missing_id", "f", raw)


ROWS = [
    *[good("tea")] * 3,
    good("tea", dt=NEXT),
    good("tea", item="i"),
    *[good("coffee", value=0.0), good("coffee", value=-0.0)],
    good("cocoa", value=1.0),
    *[refused("{}"), refused("{}")],
]


def settled(spark, *, are_few):
    found = settle_events(spark.createDataFrame(ROWS, SCHEMA), are_few=are_few)
    return [Counter(tuple(row) for row in rows.select(sorted(rows.columns)).collect()) for rows in found]


@pytest.mark.parametrize("all_hashes_alike", [False, True])
@pytest.mark.parametrize("few_hashes", [0, 100])
def test_many_events_are_settled_as_few_are(spark, monkeypatch, all_hashes_alike, few_hashes):
    monkeypatch.setattr(settle_rows, "_FEW_HASHES", few_hashes)
    if all_hashes_alike:
        monkeypatch.setattr(settle_rows.F, "xxhash64", lambda *_: settle_rows.F.lit(1).cast("bigint"))
    kept, quarantined = settled(spark, are_few=False)
    assert [kept, quarantined] == settled(spark, are_few=True)
    assert sorted(row[0] for row in kept) == [1, 1, 1, 2, 3]  # copies
    assert list(quarantined.values()) == [2]
