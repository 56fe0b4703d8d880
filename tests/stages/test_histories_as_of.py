"""Published histories are those that training reads."""

from datetime import UTC, date, datetime

from predicted_days import write_rows

from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.stages.histories_as_of import histories_as_of

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
