"""Which days the driver derives: bounded by what it would hold, not by what lies in the tables."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bahe_tasks.config import Config, SequencesConfig, SparkConfig
from bahe_tasks.stages import dedup_behaviors as stage

DAY = date(2024, 3, 1)


@pytest.fixture
def fits(monkeypatch, tmp_path):
    """(rows that land, stored rows by table, days of sequences) → whether a driver of 1,000 rows derives the day."""

    def decide(landed, stored, *, days=("2024-02-29",)):
        def count(_, name, *, partitions=None):
            return stored.get(name, 0) if partitions != "false" else 0

        monkeypatch.setattr(stage, "count_stored", count)
        monkeypatch.setattr(stage, "partition_records", lambda _, name: dict.fromkeys(days))
        config = Config(
            home=tmp_path,
            spark=SparkConfig(driver_rows=1_000),
            sequences=SequencesConfig(max_behaviors_per_sequence=50),
        )
        return stage._fits_driver(DAY, config, state_days=(date(2024, 2, 29),), excluded=(), landed_rows=landed)

    return decide


def test_rows_that_land_or_are_still_to_be_counted_are_bounded(fits):
    assert fits(1_000, {})
    assert not fits(1_001, {})
    assert not fits(600, {"impressions": 401})


def test_a_long_window_of_events_fits_where_the_histories_of_a_day_do(fits):
    # twice 80 sequences of 50 behaviors are eight thousand, an eighth of the memory of a row each; 81 are more
    assert fits(10, {"behavior_events": 9_000_000, "user_sequences": 80})
    assert not fits(10, {"behavior_events": 9_000_000, "user_sequences": 81})
    assert fits(10, {"behavior_events": 8_000, "user_sequences": 5_000})


def test_without_an_earlier_day_of_sequences_all_events_may_be_read(fits):
    assert not fits(10, {"behavior_events": 8_001}, days=())
    assert fits(10, {"behavior_events": 8_000}, days=())


def test_the_behaviors_of_all_windows_are_bounded_once_each(fits):
    # a row has the memory of 16 keys; 400 sequences of 50 behaviors are more, unless they are the same again and again
    assert fits(10, {"user_sequences": 320, "atomic_behaviors": 16_001})
    assert fits(10, {"user_sequences": 400, "atomic_behaviors": 16_000})
    assert not fits(10, {"user_sequences": 400, "atomic_behaviors": 16_001})


def test_a_text_that_a_parquet_file_says_once_counts_as_often_as_it_is_said(tmp_path):
    texts = pa.array(["long" * 1000] * 2000)
    for name, column in (("plain", texts), ("coded", texts.dictionary_encode())):
        pq.write_table(pa.table({"text": column}), tmp_path / f"{name}.parquet")
        assert 2000 * 4000 <= stage._bytes_of(tmp_path / f"{name}.parquet") < 2000 * 4100
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no footer")
    assert stage._bytes_of(tmp_path / "broken.parquet") == 18
