"""The sums that the Spark job writes are those of the definition, whatever the log and however its days are run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, write_deltalake
from handmade_rows import DAY_US, Impression, day_of
from handmade_sums_log import FIRST, random_log
from slow_outcome_values import slow_outcome_value
from slow_running_sums import slow_sums
from sums_home import Home, assert_pairs_are_scored_with_the_state_at_the_end_of_the_last_day, assert_sums

from bahe_tasks.config import Config, LandingConfig, NumbersConfig, PublishConfig, SparkConfig
from bahe_tasks.running_sums import IMPRESSION_SUMS, KEY_OF_ALL, STATISTICS, state_key, state_width
from bahe_tasks.schemas import SOURCES
from bahe_tasks.stages.pair_sums import pair_sums
from bahe_tasks.stages.state_as_of import StateAsOf, active_state
from bahe_tasks.stored_sums import OtherSumsError
from bahe_tasks.stores.delta_tables import read_table, table_version
from bahe_tasks.stores.partition_records import COMMIT_METADATA_KEY, partition_records
from benchmarks.kit.in_memory_log import read_log
from benchmarks.kit.point_in_time_sums import point_in_time_sums
from spark_jobs.session import FOR_MANY_DAYS, spark_session

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module", autouse=True)
def spark():
    return spark_session(SparkConfig(driver_memory="1g", jvm_options=FOR_MANY_DAYS), app_name="tests")


@pytest.fixture
def new_home(tmp_path):
    """How a test makes a home folder of its own; late rows of the handmade logs are up to two days late."""

    def make(name: str = "home", **sections) -> Home:
        return Home(Config(home=tmp_path / name, landing=LandingConfig(), **sections))

    return make


@pytest.mark.parametrize("as_of", ["impression", "day_start"])
def test_sums_are_those_of_the_definition_with_late_rows_late_labels_gaps_and_a_refused_day(new_home, as_of):
    days = [FIRST, FIRST + 1, FIRST + 2, FIRST + 5, FIRST + 6]
    landed = [*days[:3], FIRST + 3, *days[3:]]  # the events of one day are taken in by a later run
    impressions, events = random_log(1, days=landed, rows_a_day=24, plain=False)
    impressions = [i for i in impressions if i.dt != FIRST + 3]
    refused = FIRST + 1
    home = new_home(numbers=NumbersConfig(as_of=as_of))
    home.land(impressions, events)
    for day in days:
        home.run(day)
        if day == refused:
            home.refuse(day)
    expected = slow_sums(
        days, impressions, events, excluded=frozenset({refused}), stop_at_day_start=as_of == "day_start"
    )
    assert_sums(home, expected)
    assert any(sums is None for sums in expected.values())  # late ones are there

    assert_pairs_are_scored_with_the_state_at_the_end_of_the_last_day(
        home, days, impressions, events, excluded=frozenset({refused}), stop_at_day_start=as_of == "day_start"
    )

    before, states = home.sums(), home.rows_of("running_sums")
    home.run(days[-1], force=True)
    assert (home.sums(), home.rows_of("running_sums")) == (before, states)
    version = table_version(home.config.tables_dir, "impressions")
    home.run(days[-1])
    assert table_version(home.config.tables_dir, "impressions") == version


def test_as_of_the_start_of_the_day_an_impression_reads_what_was_published_the_evening_before(new_home):
    days = [FIRST, FIRST + 1, FIRST + 2]
    impressions, events = random_log(6, days=days, rows_a_day=30, plain=False)
    home = new_home(numbers=NumbersConfig(as_of="day_start"))
    home.land(impressions, events)
    for day in days[:2]:
        home.run(day)
    titles = {i.item: i.title for i in impressions if i.title is not None}
    users, items = (sorted({getattr(i, name) for i in impressions}) for name in ("user", "item"))
    state = StateAsOf(active_state(users, items, list(titles.values()), day_of(days[1]), home.config), day_of(days[1]))
    home.run(days[2])
    of_day = [i for i in impressions if i.dt == days[2] and not i.is_late]
    assert any(i.is_late for i in impressions if i.dt == days[2])
    columns = {name: np.array([i.cat.get(name) for i in of_day], object) for name in ("colour", "place")}
    published = pair_sums(
        pd.DataFrame([(i.user, i.item) for i in of_day], columns=["user_id", "item_id"]), titles, columns, state
    )
    read = np.array([home.sums()[i.name] for i in of_day], dtype=float)
    assert len({i.shown_us for i in of_day}) > 1
    np.testing.assert_array_equal(read, published)


def test_values_of_columns_are_published_while_they_are_met(new_home):
    days = [FIRST, FIRST + 1, FIRST + 2]
    shown = [
        Impression(f"{day}-{n}", day, "u0", "i0", None, day * DAY_US + n, n % 2, day * DAY_US + n, {"place": f"p{day}"})
        for day in days
        for n in range(3)
    ]
    home = new_home(publish=PublishConfig(publish_days=2))
    home.land(shown, [])
    for day in days:
        home.run(day)
    state = active_state(["u0"], ["i0"], [], day_of(days[-1]), home.config).to_pylist()
    published = {row["key"] for row in state if row["scope"] == "cat"}
    assert published == {state_key("cat", "place", f"p{day}") for day in days[1:]}


def test_a_state_of_other_sums_is_refused_where_pairs_are_scored_too(new_home):
    impressions, events = random_log(6, days=[FIRST], rows_a_day=10, plain=True)
    home = new_home()
    home.land(impressions, events)
    home.run(FIRST)
    rows = active_state(["u0"], ["i0"], [], day_of(FIRST), home.config)
    others = rows.filter(pc.not_equal(rows["key"], KEY_OF_ALL))
    assert StateAsOf(rows, day_of(FIRST)).base_rate().known > 0
    with pytest.raises(OtherSumsError, match="other numbers of users, items and words"):
        StateAsOf(others, day_of(FIRST)).base_rate()


def test_days_of_events_alone_pass_the_labels_of_the_log_on(new_home):
    days = list(range(FIRST, FIRST + 5))
    impressions, events = random_log(8, days=days, rows_a_day=20, plain=True)
    impressions = [i for i in impressions if i.dt in (FIRST, FIRST + 3, FIRST + 4)]
    home = new_home()
    home.land(impressions, events)
    for day in days:
        home.run(day)
    assert_sums(home, slow_sums(days, impressions, events))


def test_a_day_derived_in_buckets_has_the_rows_of_one_derived_in_the_driver_bit_for_bit(new_home):
    landed = [FIRST, FIRST + 1, FIRST + 2]
    impressions, events = random_log(7, days=landed, rows_a_day=40, plain=False)
    impressions = [i for i in impressions if i.dt != FIRST + 1]  # whose events are taken in by the last run
    homes = [new_home(name, spark=SparkConfig(driver_rows=rows)) for name, rows in (("driver", 200_000), ("many", 0))]
    for home in homes:
        home.land(impressions, events)
        for day in (FIRST, FIRST + 2):
            home.run(day)
    for table in (*SOURCES, "user_sequences", "running_sums", "atomic_behaviors", "new_behaviors", "quarantine"):
        assert homes[0].rows_of(table) == homes[1].rows_of(table), table
    assert homes[0].rows_of("impressions")


def test_sums_equal_those_in_memory_day_by_day(new_home):
    days = list(range(FIRST, FIRST + 5))
    impressions, events = random_log(2, days=days, rows_a_day=60, plain=True)
    home = new_home()
    home.land(impressions, events)
    for day in days:
        home.run(day)
    impressions.sort(key=lambda i: i.shown_us)
    # a title of an item is known from the first day on
    titles = {i.item: i.title for i in impressions if i.title is not None}
    in_memory = point_in_time_sums(
        pd.DataFrame({
            "user_id": [i.user for i in impressions], "item_id": [i.item for i in impressions],
            "shown_at": [i.shown_us for i in impressions], "label": [i.label for i in impressions],
        }),
        pd.Series([titles.get(i.item) for i in impressions], dtype=object),
        pd.DataFrame({
            "user_id": [e.user for e in events], "item_id": [e.item for e in events], "text": [e.text for e in events],
            "feature": [e.feature for e in events], "occurred_at": [e.occurred_us for e in events],
            "value": np.array([e.value for e in events], float),
        }),
        {name: np.array([i.cat.get(name) for i in impressions], object) for name in ("colour", "place")},
    )  # fmt: skip
    found = home.sums()
    rows = np.array([found[i.name] for i in impressions], dtype=float)
    np.testing.assert_allclose(rows, in_memory, rtol=1e-9, atol=1e-6)
    log = read_log(home.config.landing_dir).rows
    rows = np.array([found[name] for name in log.impression_ids], dtype=float)
    np.testing.assert_allclose(rows, log.sums, rtol=1e-9, atol=1e-6)
    held = read_table(home.config.tables_dir, "running_sums").to_pylist()
    assert {row["scope"] for row in held} == {
        "log",
        "user",
        "item",
        "user_item",
        "token",
        "pair",
        "cat",
        "all",
        "feature",
    }
    assert all(len(row["sums"]) == state_width(row["scope"]) for row in held)
    of_last = [row for row in held if row["dt"] == day_of(days[-1])]
    assert len({(row["scope"], row["key"]) for row in of_last}) == len(of_last)
    assert {row["key"] for row in held if row["scope"] == "user"} <= {state_key("user", f"u{n}") for n in range(3)}
    for scope in ("pair", "user_item"):
        owners = {row["owner"] for row in held if row["scope"] == scope}
        assert owners == {row["key"] for row in held if row["scope"] == "user"}


@pytest.mark.parametrize("known_before_us", [0, 1_000_000])
def test_no_label_moves_its_own_or_earlier_sums(new_home, known_before_us):
    impressions, events = random_log(3, days=[FIRST], rows_a_day=40, plain=True)
    impressions = [replace(i, known_us=i.shown_us - known_before_us) for i in impressions]
    flipped = impressions[len(impressions) // 2]
    homes = []
    for name, changed in (("a", flipped), ("b", replace(flipped, label=1 - flipped.label))):
        home = new_home(name)
        home.land([changed if i is flipped else i for i in impressions], events)
        home.run(FIRST)
        homes.append(home.sums())
    for i in impressions:
        if i.shown_us <= flipped.shown_us:
            assert homes[0][i.name] == homes[1][i.name]
    assert homes[0] != homes[1]


@pytest.mark.parametrize("flaw", ["no item_id", "no value", "equal titles", "one user", "no columns and no items"])
def test_a_log_that_lacks_something_has_the_sums_of_the_definition(new_home, flaw):
    impressions, events = random_log(4, days=[FIRST, FIRST + 1], rows_a_day=20, plain=True)
    change = {
        "no item_id": ({}, {"item": None}),
        "no value": ({}, {"value": None}),
        "equal titles": ({"title": "the same"}, {"text": "the same"}),
        "one user": ({"user": "u"}, {"user": "u"}),
        "no columns and no items": ({"cat": {}, "item": "i1", "title": None}, {}),
    }[flaw]
    impressions = [replace(i, **change[0]) for i in impressions]
    events = list(dict.fromkeys(replace(e, **change[1]) for e in events))
    home = new_home()
    home.land(impressions, events)
    for day in (FIRST, FIRST + 1):
        home.run(day)
    assert_sums(home, slow_sums([FIRST, FIRST + 1], impressions, events))


@pytest.mark.parametrize("as_of", ["impression", "day_start"])
def test_outcome_values_are_those_of_the_definition(new_home, as_of):
    days = [FIRST, FIRST + 1, FIRST + 2]
    impressions, events = random_log(7, days=days, rows_a_day=60, plain=False)
    home = new_home(numbers=NumbersConfig(as_of=as_of))
    home.land(impressions, events)
    for day in days:
        home.run(day)
    rows = read_table(home.config.tables_dir, "impressions", columns=["impression_id", "outcome_value"]).to_pylist()
    expected = {i.name: slow_outcome_value(i, events) for i in impressions}
    assert {row["impression_id"]: row["outcome_value"] for row in rows} == expected
    assert {0.5, 1.0, 4.0, None} <= set(expected.values())


def test_a_home_from_before_the_sums_goes_on_and_counts_all_that_landed(new_home):
    """Its impressions have no column `sums`: they are read as null, and the column comes with the next day written."""
    days = [FIRST, FIRST + 1]
    impressions, events = random_log(6, days=days, rows_a_day=20, plain=True)
    home = new_home()
    home.land(impressions, events)
    home.run(FIRST)
    tables = Path(home.config.tables_dir)
    shutil.rmtree(tables / "running_sums")
    old = read_table(tables, "impressions").drop_columns(["sums"])
    written = partition_records(tables, "impressions")[str(day_of(FIRST))]
    shutil.rmtree(tables / "impressions")
    as_before = {"input_fingerprint": written.input_fingerprint, "counts": written.counts}
    document = json.dumps({"partitions": {str(day_of(FIRST)): as_before}})
    write_deltalake(
        str(tables / "impressions"),
        pa.table(old),
        partition_by=["dt"],
        commit_properties=CommitProperties(custom_metadata={COMMIT_METADATA_KEY: document}),
    )
    home.run(FIRST + 1)
    found, expected = home.sums(), slow_sums([FIRST + 1], impressions, events)
    assert all(found[i.name] is None for i in impressions if i.dt == FIRST)
    assert str(day_of(FIRST + 1)) in partition_records(tables, "running_sums")
    name = IMPRESSION_SUMS.index("user_label_n_infd")
    later = [i for i in impressions if i.dt == FIRST + 1]
    # labels of the first day are counted, and so is that its impressions were shown
    assert any(found[i.name][name] != expected[i.name][name] for i in later)
    assert STATISTICS["user"][0] == "label_n"
