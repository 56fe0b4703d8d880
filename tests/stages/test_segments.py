import dataclasses
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from predicted_days import impression, prediction, refuse, write_rows

from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.stages.segments import UNKNOWN, segments_of, value_names
from bahe_tasks.stores.arrow_types import arrow_schema

D1, D2, D3 = (date(2024, 1, 1) + timedelta(days=n) for n in range(3))


@pytest.fixture
def config(tmp_path):
    return Config(home=tmp_path, sequences=SequencesConfig(max_behaviors_per_sequence=8))


def predictions(*rows):
    return pa.Table.from_pylist(list(rows), schema=arrow_schema("progressive_predictions"))


def test_values_are_named_by_the_numbers_they_hold():
    assert value_names("user_impressions") == ["0", "1-9", "10+"]
    assert value_names("history_length") == ["0", "1-9", "10-49", "50+"]


def test_impressions_are_counted_on_earlier_days_alone(config):
    write_rows(config, "impressions", [impression(D1, n, "ann", f"i{n}") for n in range(9)])
    write_rows(
        config, "impressions", [impression(D2, n, "ann", "i0") for n in range(5)] + [impression(D2, 9, "bob", "i1")]
    )
    write_rows(config, "impressions", [impression(D3, n, "bob", "i7") for n in range(40)])
    found = segments_of(
        predictions(
            prediction(D3, 0, "bob", "i7", 1, 0.5),  # bob once on D2; i7 once on D1, and 40 times on D3 itself
            prediction(D2, 0, "ann", "i0", 1, 0.5),  # ann 9 times on D1; i0 once
            prediction(D2, 9, "bob", "i1", 0, 0.5),  # bob never before D2
            prediction(D3, 1, "ann", "i0", 0, 0.5),  # ann 14 times; i0 6 times
            prediction(D3, 2, "cat", "new", 0, 0.5),
            prediction(D1, 0, "ann", "i0", 0, 0.5),  # the first day of all
        ),
        config,
    )
    assert found["user_impressions"].tolist() == ["1-9", "1-9", "0", "10+", "0", "0"]
    assert found["item_impressions"].tolist() == ["1-9", "1-9", "1-9", "1-9", "0", "0"]


def test_history_is_what_the_model_could_read_of_every_feature(config):
    write_rows(
        config,
        "impressions",
        [
            impression(D1, 0, "ann", "i"),
            impression(D1, 1, "ann", "i", bills=9, visits=0),  # of 9 bills 8 are read
            impression(D1, 2, "ann", "i", bills=9, visits=2),
            impression(D1, 3, "bob", "i", **{f"f{n}": 100 for n in range(7)}),
        ],
    )
    rows = [prediction(D1, n, "ann", "i", 0, 0.5) for n in (3, 0, 2, 1)]
    found = segments_of(predictions(*rows, prediction(D1, 99, "ann", "i", 0, 0.5)), config)
    assert found["history_length"].tolist() == ["50+", "0", "10-49", "1-9", UNKNOWN]


def test_a_feature_that_is_read_less_far_back_counts_less(config):
    config = dataclasses.replace(
        config, sequences=SequencesConfig(max_behaviors_per_sequence=8, max_behaviors_by_feature={"bills": 4})
    )
    write_rows(config, "impressions", [impression(D1, n, "ann", "i", bills=8, visits=n) for n in (5, 6)])
    found = segments_of(predictions(*(prediction(D1, n, "ann", "i", 0, 0.5) for n in (5, 6))), config)
    assert found["history_length"].tolist() == ["1-9", "10-49"]  # 4 bills and 5 or 6 visits


def test_one_impression_id_on_two_days_is_two_impressions(config):
    write_rows(config, "impressions", [impression(D1, 0, "ann", "i", bills=3)])
    write_rows(config, "impressions", [impression(D2, 0, "ann", "i")])
    found = segments_of(
        predictions(prediction(D2, 0, "ann", "i", 0, 0.5), prediction(D1, 0, "ann", "i", 0, 0.5)), config
    )
    assert found["history_length"].tolist() == ["0", "1-9"]


def test_a_refused_day_is_not_counted(config):
    write_rows(config, "impressions", [impression(D1, 0, "ann", "i")])
    refuse(config, D1)
    found = segments_of(predictions(prediction(D2, 0, "ann", "i", 0, 0.5)), config)
    assert (found["user_impressions"][0], found["history_length"][0]) == ("0", UNKNOWN)


def test_no_predictions_and_no_impressions(config):
    assert all(len(values) == 0 for values in segments_of(predictions(), config).values())
    found = segments_of(predictions(prediction(D2, 0, "ann", "i", 0, 0.5)), config)
    assert {segment: values[0] for segment, values in found.items()} == {
        "user_impressions": "0", "item_impressions": "0", "history_length": UNKNOWN,
    }  # fmt: skip


def test_counts_equal_those_of_a_plain_loop_over_many_rows(config):
    rng = np.random.default_rng(1)
    seen, expected, rows = Counter(), [], []
    for day in (D1, D2, D3):
        users = [f"u{u}" for u in rng.zipf(1.6, size=120) % 50]
        write_rows(config, "impressions", [impression(day, n, user, "i") for n, user in enumerate(users)])
        rows += [prediction(day, n, user, "i", 0, 0.5) for n, user in enumerate(users)]
        expected += ["0" if not seen[user] else "1-9" if seen[user] < 10 else "10+" for user in users]
        seen.update(users)
    assert set(expected) == {"0", "1-9", "10+"}
    assert segments_of(predictions(*rows), config)["user_impressions"].tolist() == expected
