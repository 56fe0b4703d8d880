"""What the status says of a day beside its counts."""

from __future__ import annotations

from datetime import date

from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.config import load_config
from bahe_tasks.stages.gate_record import record_results
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import ExpectationResult

ACCEPTED, REFUSED = date(2024, 1, 1), date(2024, 1, 2)
COUNTS = {"landed": 9, "rows": 4, "duplicates": 0, "quarantined": 5}


def test_a_day_that_was_accepted_by_hand_is_shown_with_the_reason(tmp_path):
    (tmp_path / "bahe.yaml").touch()
    config, none = load_config(tmp_path), arrow_schema("impressions").empty_table()
    results = [ExpectationResult("quarantined_share", "failed", "0.6", "at most 0.2")]
    by_hand = ExpectationResult("accepted by hand", "accepted", "a [known] outage", "a reason")
    for day, said in ((ACCEPTED, [*results, by_hand]), (REFUSED, results)):
        entry = {str(day): {"input_fingerprint": "f", "counts": COUNTS | {"capped_behaviors": 7 * (day == REFUSED)}}}
        replace_partitions(config.tables_dir, "impressions", none, predicate=f"dt = '{day}'", partitions=entry)
        record_results(config, day, "validate_inputs", said, model_version=None, input_fingerprint="f")
    days = read_status(config)["days"]
    assert [(day["gate"], day["accepted"]) for day in days] == [(None, "a [known] outage"), ("inputs_refused", None)]
    shown = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    assert "–, by hand" in shown.stdout
    assert f"{ACCEPTED}: inputs accepted by hand: a [known] outage\n" in shown.stderr
    left_out = "behaviors left out of histories (sequences.max_events_per_sequence)\n"
    assert f"{REFUSED}: 7 {left_out}" in shown.stderr
    assert shown.stderr.count(left_out) == 1
