"""Published histories are those that training reads."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from predicted_days import write_rows

from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.stages.histories_as_of import histories_as_of, newest_items
from bahe_tasks.stores.arrow_types import arrow_schema
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
