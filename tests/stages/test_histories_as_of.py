"""Published histories are those that training reads."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from predicted_days import write_rows

from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.stages.histories_as_of import histories_as_of, newest_items
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.derived.build_sequences import EVENT_COLUMNS, build_sequences
from spark_jobs.derived.look_up_items import VERSIONS, look_up_items

D1, D2 = date(2024, 3, 1), date(2024, 3, 2)


def event(day: date, hour: int, text: str) -> dict:
    return {
        "dt": day,
        "user_id": "u",
        "feature": "bills",
        "occurred_at": datetime(2024, 3, 1, hour, tzinfo=UTC),
        "behavior_key": text,
        "text": text,
    }


def test_an_event_that_was_delivered_again_a_day_later_is_one_behavior(tmp_path):
    config = Config(home=tmp_path, sequences=SequencesConfig(max_behaviors_per_sequence=3))
    write_rows(config, "behavior_events", [event(D1, hour, text) for hour, text in enumerate("abcd")])
    write_rows(config, "behavior_events", [event(D2, hour, text) for hour, text in enumerate("abcd")])
    assert histories_as_of(["u"], D2, config).events["behavior_key"].tolist() == ["b", "c", "d"]


@pytest.mark.parametrize("most", [4, 2])
def test_events_of_one_time_and_text_stand_as_in_the_histories_that_are_trained_on(tmp_path, most):
    ties = [("i", 5.0), (None, None), ("a", None), (None, 1.0)]
    write_rows(
        config := Config(home=tmp_path, sequences=SequencesConfig(max_behaviors_per_sequence=most)),
        "behavior_events",
        [{**event(D1, 8, "t"), "item_id": item, "value": value} for item, value in ties],
    )
    shown = pa.table({"user_id": ["u"], "shown_at": [datetime(2024, 3, 1, 9, tzinfo=UTC)]})
    events = read_table(tmp_path / "tables", "behavior_events", columns=EVENT_COLUMNS)
    trained = build_sequences(events, shown, sequences=config.sequences)[0]["values"].to_pylist()[0]
    published = histories_as_of(["u"], D1, config).events["value"]
    assert [None if value != value else value for value in published] == trained
    assert trained == [None, None, 1.0, 5.0][-most:]


@pytest.mark.parametrize("brands", [("old", "new"), ("new", "old")])
def test_of_two_rows_of_an_item_that_say_different_things_at_one_time_the_one_that_is_trained_on_is_published(
    tmp_path, brands
):
    item = {"dt": D1, "item_id": "i", "updated_at": datetime(2024, 3, 1, tzinfo=UTC), "title_key": "t", "title": "t"}
    items = [{**item, "cat": {"brand": brand}, "num": {}} for brand in brands]
    config = Config(home=tmp_path)
    write_rows(config, "items", [*items, {**items[0], "item_id": "a"}, {**items[0], "item_id": "not asked for"}])
    shown = {"item_id": "i", "shown_at": datetime(2024, 3, 2, tzinfo=UTC), "cat": {}, "num": {}}
    schema = pa.schema([arrow_schema("impressions").field(name) for name in shown])
    trained = look_up_items(pa.Table.from_pylist([shown], schema=schema), pa.Table.from_pylist(items, schema=VERSIONS))
    published = newest_items(["a", "b", "i"], D1, config)
    assert published["item_id"].to_pylist() == ["a", "i"]
    assert published["cat"].to_pylist()[1] == trained["cat"].to_pylist()[0] == [("brand", "old")]
