"""What is known at the end of a day: what was trained on as of the start of the next, and nothing of refused days."""

from __future__ import annotations

import pytest
from handmade_rows import DAY_US, day_of
from handmade_sums_log import FIRST, random_log
from sums_home import Home

from bahe_tasks.config import Config, SequencesConfig, SparkConfig
from bahe_tasks.stages.histories_as_of import active_ids, histories_as_of, newest_items
from bahe_tasks.stages.state_as_of import active_state
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.session import FOR_MANY_DAYS, spark_session

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module", autouse=True)
def spark():
    return spark_session(SparkConfig(driver_memory="1g", jvm_options=FOR_MANY_DAYS), app_name="tests")


def test_as_of_the_start_of_the_day_an_impression_reads_the_history_that_was_published_the_evening_before(tmp_path):
    days = [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]
    impressions, events = random_log(6, days=days, rows_a_day=40, plain=False)
    last = days[-1]
    assert any(e.dt == last and e.occurred_us < last * DAY_US for e in events)  # late ones: nobody knew them before
    sequences = SequencesConfig(history_as_of="day_start", history_days=2, max_behaviors_per_sequence=3)
    home = Home(Config(home=tmp_path, sequences=sequences))
    home.land(impressions, events)
    for day in days[:-1]:
        home.run(day)
    of_day = [i for i in impressions if i.dt == last and not i.is_late]
    users = sorted({i.user for i in of_day})
    published = histories_as_of(users, day_of(last - 1), home.config).events
    home.run(last)
    stored = read_table(home.config.tables_dir, "user_sequences", partitions=f"dt = '{day_of(last)}'").to_pylist()
    read = {(row["user_id"], row["feature"]): row["behavior_keys"] for row in stored if row["user_id"] in users}
    ends = read_table(home.config.tables_dir, "impressions", columns=["impression_id", "sequence_ends"]).to_pylist()
    ends_of = {row["impression_id"]: dict(row["sequence_ends"]) for row in ends}
    for i in of_day:
        for feature in {feature for _, feature in read}:
            history = published[(published["user_id"] == i.user) & (published["feature"] == feature)]
            end = ends_of[i.name].get(feature, 0)
            assert read.get((i.user, feature), [])[max(end - 3, 0) : end] == history["behavior_key"].tolist()
    assert sum(map(len, read.values())) > 10


def test_what_is_published_after_a_day_was_refused_holds_nothing_of_it(tmp_path):
    days = [FIRST, FIRST + 1]
    impressions, events = random_log(6, days=days, rows_a_day=20, plain=True)
    home = Home(Config(home=tmp_path))
    home.land(impressions, events)
    users, items = (sorted({getattr(i, name) for i in impressions}) for name in ("user", "item"))

    def published() -> list[str]:
        day, config = day_of(days[1]), home.config
        found = [
            histories_as_of(users, day, config).events.to_dict("records"),
            newest_items(items, day, config).to_pylist(),
            active_state(users, items, [], day, config).to_pylist(),
            active_ids(day_of(days[0]), day, config),
        ]
        return list(map(str, found))

    home.run(days[0])
    before = published()
    home.run(days[1])
    passed = published()
    home.refuse(days[1])
    assert published() == before != passed
