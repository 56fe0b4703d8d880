"""What an impression of a log in memory is told, by the days that rows landed on."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.config import LandingConfig
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks.kit.in_memory_log import read_log


def land(folder, source, dt, *rows):
    day = folder / source / f"dt={dt}"
    day.mkdir(parents=True, exist_ok=True)
    (day / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def impression(number, shown_at):
    return {"impression_id": f"i{number}", "user_id": "u", "item_id": "m", "shown_at": shown_at, "label": 1}


def item(updated_at, title):
    return {"item_id": "m", "updated_at": updated_at, "title": title, "cat_kind": title, "num_price": len(title)}


def event(occurred_at, text):
    return {"user_id": "u", "feature": "liked", "occurred_at": occurred_at, "text": text}


@pytest.fixture
def landing(tmp_path):
    for number, dt in enumerate(["2024-01-01", "2024-01-02", "2024-01-03"]):
        land(tmp_path, "impressions", dt, impression(number, f"{dt}T12:00:00Z"))
    return tmp_path


def titles(log):
    return [log.texts[row] if row >= 0 else None for row in log.rows.title_rows]


def test_an_item_is_unknown_until_it_has_landed(landing):
    land(landing, "items", "2024-01-02", item("2024-01-01T06:00:00Z", "first"), item("2024-01-02T18:00:00Z", "second"))
    log = read_log(landing)
    assert titles(log) == [None, "first", "second"]
    assert log.rows.cat["kind"].tolist() == [None, "first", "second"]


def test_an_item_of_later_the_same_day_tells_title_and_columns_but_no_number(landing):
    land(landing, "items", "2024-01-02", item("2024-01-02T18:00:00Z", "second"), item("2024-01-02T20:00:00Z", "third"))
    log = read_log(landing)
    assert titles(log) == [None, "second", "third"]
    assert log.rows.cat["kind"].tolist() == [None, "second", "third"]
    assert [str(price) for price in log.rows.num["price"]] == ["nan", "nan", "5.0"]


def test_a_late_event_is_read_from_the_day_it_landed_on(landing):
    land(landing, "behavior_events", "2024-01-03", event("2024-01-01T06:00:00Z", "late"))
    land(landing, "behavior_events", "2024-01-01", event("2024-01-01T07:00:00Z", "in time"))
    history = read_log(landing).rows.histories["liked"]
    assert (history.ends - history.starts).tolist() == [1, 1, 2]


def test_a_late_impression_is_trained_on_when_it_landed_and_is_no_sighting(landing):
    land(
        landing,
        "impressions",
        "2024-01-04",
        impression(9, "2024-01-02T18:00:00Z"),
        impression(10, "2024-01-04T12:00:00Z"),
    )
    log = read_log(landing)
    assert log.rows.impression_ids.tolist() == ["i0", "i1", "i9", "i2", "i10"]
    assert log.label_times.is_late.tolist() == [False, False, True, False, False]
    assert log.train_days.astype(str).tolist() == ["2024-01-01", "2024-01-02", "2024-01-04", "2024-01-03", "2024-01-04"]
    user_n, user_gap_s = (log.rows.sums[:, IMPRESSION_SUMS.index(name)] for name in ("user_label_n_infd", "user_gap_s"))
    np.testing.assert_array_equal(user_n, [0, 1, np.nan, 2, 4])  # the late one counts from the start of that day
    assert user_gap_s[3] == 24 * 3600


def test_a_label_known_later_is_counted_and_trained_on_then(landing):
    later = {**impression(9, "2024-01-02T10:00:00Z"), "label_known_at": "2024-01-03T11:00:00Z"}
    too_late = {**impression(8, "2024-01-02T09:00:00Z"), "label_known_at": "2024-03-03T11:00:00Z"}
    land(landing, "impressions", "2024-01-02", later, too_late, impression(1, "2024-01-02T12:00:00Z"))
    log = read_log(landing)
    assert log.rows.impression_ids.tolist() == ["i0", "i8", "i9", "i1", "i2"]
    assert log.train_days.astype(str).tolist() == ["2024-01-01", "9999-12-31", "2024-01-03", "2024-01-02", "2024-01-03"]
    user_n = log.rows.sums[:, IMPRESSION_SUMS.index("user_label_n_infd")]
    assert user_n.tolist() == [0, 1, 1, 1, 3]


def test_a_label_delay_holds_for_every_label(landing):
    log = read_log(landing, landing_settings=LandingConfig(label_delay_s=2 * 24 * 3600))
    assert log.train_days.astype(str).tolist() == ["2024-01-03", "2024-01-04", "2024-01-05"]


def test_every_format_is_read_and_what_the_contract_refuses_is_left_out(landing):
    day = landing / "impressions" / "dt=2024-01-03"
    (day / "more.csv").write_text(
        "impression_id,user_id,item_id,shown_at,label,num_price\n"
        "c1,u,m,2024-01-03T13:00:00Z,0,2.5\nc2,u,m,2024-01-03T13:00:00Z,maybe,1\n"
    )
    pq.write_table(
        pa.table(
            {
                **{name: ["p1"] for name in ("impression_id", "user_id", "item_id")},
                "shown_at": [1704290400.0],
                "label": [1],
            }
        ),
        day / "more.parquet",
    )
    log = read_log(landing)
    assert log.rows.impression_ids.tolist() == ["i0", "i1", "i2", "c1", "p1"]
    np.testing.assert_array_equal(log.rows.num["price"], [np.nan, np.nan, np.nan, 2.5, np.nan])
    assert log.rows.labels.tolist() == [1, 1, 1, 0, 1]
