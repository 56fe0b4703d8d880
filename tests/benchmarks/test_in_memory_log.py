"""What an impression of a log in memory is told, by the days that rows landed on."""

import json

import pytest

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


def test_a_late_impression_is_refused(landing):
    land(landing, "impressions", "2024-01-04", impression(9, "2024-01-03T12:00:00Z"))
    with pytest.raises(ValueError, match="has 1 impressions in folders of a later day"):
        read_log(landing)
