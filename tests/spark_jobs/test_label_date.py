"""From which day on the label of an impression may be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa

from bahe_tasks.config import LandingConfig
from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.derived.counted_rows import with_label_date

DAY = date(2024, 3, 10)


def dates_of(plan, known: list[datetime | None]):
    schema = pa.schema([arrow_schema("impressions").field(name) for name in ("dt", "shown_at", "label_known_at")])
    shown_at = datetime(2024, 3, 9, 23, 59, 59, tzinfo=UTC)
    rows = [{"dt": DAY, "shown_at": shown_at, "label_known_at": at} for at in known]
    found = with_label_date(pa.Table.from_pylist(rows, schema=schema), plan)
    return found["label_date"].to_pylist(), found["is_late"].to_pylist()


def test_label_date_is_the_first_day_that_may_use_the_label(landing, plan_of, tmp_path):
    known = [None, datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 12, tzinfo=UTC)]
    dates, are_late = dates_of(plan_of(landing, tmp_path, DAY), known)
    assert dates == [DAY, DAY, date(2024, 3, 12)]
    assert are_late == [True] * 3
    delayed = replace(plan_of(landing, tmp_path, DAY), landing=LandingConfig(label_delay_s=2 * 86400))
    assert dates_of(delayed, [None])[0] == [date(2024, 3, 11)]
