"""What an impression of a log in memory is told, by the days that rows landed on."""

import json
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import LandingConfig, SequencesConfig
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks.kit.in_memory_log import read_log
from benchmarks.peers.point_in_time import usual_numbers


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
    numbers, names = usual_numbers(log)  # of peers
    seconds = numbers[:, names.index("user_seconds_since_last")]
    np.testing.assert_array_equal(seconds, [np.nan, 86_400, np.nan, 86_400, 86_400])


def test_gaps_of_peers_are_as_of_the_start_of_the_day_where_numbers_are(landing):
    numbers, names = usual_numbers(read_log(landing, numbers_as_of="day_start"))
    seconds = numbers[:, names.index("user_seconds_since_last")]
    np.testing.assert_array_equal(seconds, [np.nan, 12 * 3600, 12 * 3600])  # of noon the day before


def test_of_late_impressions_alone_nothing_is_asked(tmp_path):
    land(tmp_path, "impressions", "2024-01-02", impression(0, "2024-01-01T12:00:00Z"))
    log = read_log(tmp_path)
    assert np.isnan(log.rows.sums).all()
    assert log.train_days.astype(str).tolist() == ["2024-01-02"]


def test_a_label_known_later_is_counted_and_trained_on_then(landing):
    later = {**impression(9, "2024-01-02T10:00:00Z"), "label_known_at": "2024-01-03T11:00:00Z"}
    too_late = {**impression(8, "2024-01-02T09:00:00Z"), "label_known_at": "2024-01-10T01:00:00Z"}
    in_time = {**impression(7, "2024-01-02T09:00:00Z"), "label_known_at": "2024-01-09T23:00:00Z"}
    land(landing, "impressions", "2024-01-02", later, too_late, in_time, impression(1, "2024-01-02T12:00:00Z"))
    log = read_log(landing)
    assert log.rows.impression_ids.tolist() == ["i0", "i7", "i8", "i9", "i1", "i2"]
    january = [1, 9, None, 3, 2, 3]
    expected = [f"2024-01-{day:02}" if day else "9999-12-31" for day in january]
    assert log.train_days.astype(str).tolist() == expected
    user_n = log.rows.sums[:, IMPRESSION_SUMS.index("user_label_n_infd")]
    assert user_n.tolist() == [0, 1, 1, 1, 1, 3]


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


def test_an_impression_delivered_again_is_there_once_and_one_that_contradicts_it_is_not(landing):
    again, other = impression(1, "2024-01-02T12:00:00Z"), {**impression(0, "2024-01-01T12:00:00Z"), "label": 0}
    land(landing, "impressions", "2024-01-03", again, other, impression(2, "2024-01-03T12:00:00Z"))
    log = read_log(landing)
    assert log.rows.impression_ids.tolist() == ["i0", "i1", "i2"]
    assert log.rows.labels.tolist() == [1, 1, 1]
    assert log.label_times is None


@pytest.mark.parametrize("folder", ["dt=2024-01-02.tmp", "dt=20240101", "dt=2024-02-30"])
def test_folders_that_are_no_day_are_passed_over(landing, folder):
    (landing / "impressions" / folder).mkdir()
    (landing / "impressions" / folder / "rows.jsonl").write_text(json.dumps(impression(9, "2024-01-02T12:00:00Z")))
    assert read_log(landing).rows.impression_ids.tolist() == ["i0", "i1", "i2"]


def test_a_label_that_is_never_known_by_the_logs_word(landing):
    land(
        landing, "impressions", "2024-01-02", {**impression(1, "2024-01-02T12:00:00Z"), "label_known_at": "9998-12-31"}
    )
    assert read_log(landing).train_days.astype(str).tolist() == ["2024-01-01", "9999-12-31", "2024-01-03"]


def random_rows(random, days):
    """Impressions, events and items of three users and items, of which many land up to two days late."""

    def time_and_dt():
        time = random.choice(days) * 86_400 + random.choice([0, 3600, 40_000, 40_000, 86_399])
        return time, min(max(days), time // 86_400 + random.choice([0, 0, 0, 1, 2]))

    rows = {"impressions": [], "behavior_events": [], "items": []}
    for n in range(40):
        user, item, (time, dt) = random.choice("uvw"), random.choice("mno"), time_and_dt()
        rows["impressions"].append(
            (dt, {"impression_id": f"i{n:02}", "user_id": user, "item_id": item, "shown_at": time, "label": 0})
        )
        time, dt = time_and_dt()
        rows["behavior_events"].append(
            (
                dt,
                {
                    "user_id": random.choice("uvw"),
                    "feature": random.choice("fg"),
                    "occurred_at": time,
                    "text": f"t{n % 7}",
                },
            )
        )
    for n in range(6):
        time, dt = time_and_dt()
        title = f"title {n}"
        rows["items"].append(
            (dt, {"item_id": random.choice("mno"), "updated_at": time - n, "title": title, "num_n": n})
        )
    return rows


def behaviors(log, feature, row):
    """Times in seconds and texts of what an impression reads."""
    history = log.rows.histories[feature]
    read = slice(history.starts[row], history.ends[row])
    pairs = zip(history.occurred_at[read], history.behavior_rows[read], strict=True)
    return [(time // 1_000_000, log.texts[text]) for time, text in pairs]


def test_of_a_sequence_that_is_too_long_each_impression_keeps_its_newest(landing):
    hours = [f"2024-01-02T{hour:02}:00:00Z" for hour in range(20)]
    land(landing, "behavior_events", "2024-01-02", *(event(hours[n], f"at {n}") for n in (8, 9, 10, 13, 14, 15)))
    land(landing, "impressions", "2024-01-02", impression(1, hours[12]), impression(5, hours[16]))
    log = read_log(landing, sequences=SequencesConfig(max_behaviors_per_sequence=2, max_events_per_sequence=2))
    told = {i: [text for _, text in behaviors(log, "liked", r)] for r, i in enumerate(log.rows.impression_ids)}
    assert told["i1"] == ["at 10"]
    assert told["i5"] == ["at 10", "at 15"]


@pytest.mark.parametrize("history_as_of", ["impression", "day_start"])
@pytest.mark.parametrize("history_days", [1, 2, 90])
@pytest.mark.parametrize("seed", range(10))
def test_an_impression_is_told_what_the_contract_says(tmp_path, seed, history_days, history_as_of):
    days = [19_723, 19_724, 19_725, 19_726]
    rows = random_rows(Random(seed), days)
    for source, of_source in rows.items():
        for dt in sorted({dt for dt, _ in of_source}):
            land(tmp_path, source, np.datetime64(dt, "D"), *(row for day, row in of_source if day == dt))
    sequences = SequencesConfig(
        history_days=history_days,
        history_as_of=history_as_of,
        max_behaviors_per_sequence=4,
        max_behaviors_by_feature={"g": 2},
    )
    log = read_log(tmp_path, sequences=sequences)
    dt_of = {row["impression_id"]: dt for dt, row in rows["impressions"]}
    events = rows["behavior_events"]
    for r, name in enumerate(log.rows.impression_ids):
        dt, shown, user, item = (
            dt_of[name],
            log.rows.shown_at[r] // 1_000_000,
            log.rows.user_ids[r],
            log.rows.item_ids[r],
        )
        as_of, last = (shown, dt) if history_as_of == "impression" else (shown // 86_400 * 86_400, dt - 1)
        assert log.rows.as_of[r] == as_of * 1_000_000
        for feature, longest in (("f", 4), ("g", 2)):
            known = {  # equal ones are one, also of two days
                (row["occurred_at"], behavior_key(row["text"]), row["text"])
                for day, row in events
                if (row["user_id"], row["feature"]) == (user, feature)
                and last - history_days < day <= last
                and row["occurred_at"] < as_of
            }
            assert behaviors(log, feature, r) == [(time, text) for time, _, text in sorted(known)[-longest:]]
        told = sorted((row["updated_at"], row) for day, row in rows["items"] if row["item_id"] == item and day <= dt)
        newest = [row for time, row in told if time <= shown]
        expected = (newest[-1:] or [row for _, row in told[:1]] or [{"title": None}])[0]["title"]
        assert titles(log)[r] == expected
        assert str(log.rows.num["n"][r]) == str(float(newest[-1]["num_n"]) if newest else np.nan)
