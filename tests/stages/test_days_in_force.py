"""Which days others may read: those whose inputs passed as they now stand."""

from datetime import date

import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages.days_in_force import excluded_days, readable_partitions, window_fingerprints
from bahe_tasks.stages.gate_record import record_results
from bahe_tasks.stages.validate_inputs import earlier_rows
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import ExpectationResult

D1, D2 = date(2024, 3, 1), date(2024, 3, 2)


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(home=tmp_path)


def write(config: Config, day: date, fingerprint: str, *, name: str = "impressions", rows: int = 0) -> None:
    empty = arrow_schema(name).empty_table()
    partition = {str(day): {"input_fingerprint": fingerprint, "counts": {"rows": rows}}}
    replace_partitions(config.tables_dir, name, empty, predicate=f"dt = '{day}'", partitions=partition)


def begin(config: Config, day: date, fingerprint: str) -> None:
    write(config, day, fingerprint, name="user_sequences")


def judge(config: Config, day: date, *outcomes: str, judged: str) -> None:
    results = [ExpectationResult(outcome, outcome, observed="", required="") for outcome in outcomes]
    record_results(config, day, "validate_inputs", results, model_version=None, input_fingerprint="g", judged=judged)


def test_a_day_that_passed_is_read_until_it_is_written_anew(config):
    write(config, D1, "first")
    judge(config, D1, "passed", judged="first")
    assert excluded_days(config) == frozenset()
    write(config, D1, "second")
    assert excluded_days(config) == {D1}
    judge(config, D1, "passed", judged="second")
    assert excluded_days(config) == frozenset()


def test_a_day_no_gate_has_looked_at_is_read_by_itself_alone(config):
    write(config, D1, "first")
    assert excluded_days(config) == {D1}
    assert window_fingerprints(D1, config, [D1]) == {str(D1): "first"}
    write(config, D2, "other")
    assert window_fingerprints(D2, config, [D2]) == {str(D2): "other"}
    assert readable_partitions(D1, D2, config) == f"dt >= '{D1}' AND dt <= '{D2}' AND dt != '{D1}' AND dt != '{D2}'"


def test_a_refused_day_is_not_read_until_it_is_accepted(config):
    write(config, D1, "first")
    judge(config, D1, "passed", "failed", judged="first")
    assert excluded_days(config) == {D1}
    judge(config, D1, "passed", "failed", "accepted", judged="first")
    assert excluded_days(config) == frozenset()


def test_a_gate_recorded_without_what_it_judged_stands(config):
    """As versions before this wrote it."""
    write(config, D1, "first")
    judge(config, D1, "passed", judged="")
    assert excluded_days(config) == frozenset()


def test_a_day_that_was_begun_and_not_finished_is_not_read(config):
    begin(config, D1, "first")
    assert excluded_days(config) == {D1}
    write(config, D1, "first")
    judge(config, D1, "passed", judged="first")
    assert excluded_days(config) == frozenset()
    begin(config, D1, "second")
    assert excluded_days(config) == {D1}


def test_the_gate_of_a_day_is_not_used_to_what_was_refused_before_it(config):
    for day, rows in ((D1, 1000), (D2, 3)):
        write(config, day, "f", rows=rows)
    judge(config, D1, "passed", judged="f")
    judge(config, D2, "failed", judged="f")
    assert earlier_rows(date(2024, 3, 3), config)["impressions"] == [1000]
    judge(config, D2, "failed", "accepted", judged="f")
    assert earlier_rows(date(2024, 3, 3), config)["impressions"] == [3, 1000]


def test_a_day_of_files_without_a_row_keeps_its_items(config):
    """It is an error and never judged; what landed of other sources that day is read."""
    empty = {source: {"landed": 0} for source in ("behavior_events", "impressions")}
    partition = {str(D1): {"input_fingerprint": "f", "counts": empty}}
    rows = arrow_schema("impressions").empty_table()
    replace_partitions(config.tables_dir, "impressions", rows, predicate=f"dt = '{D1}'", partitions=partition)
    assert excluded_days(config) == frozenset()
