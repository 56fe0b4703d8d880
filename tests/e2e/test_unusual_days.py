"""Days as real logs have them: empty, of one row, of one class, late, without titles, with a broken parent."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from conftest import FIRST, event, impression
from typer.testing import CliRunner

from bahe_tasks.checkpoint import CheckpointNotFoundError
from bahe_tasks.cli import app
from bahe_tasks.core.model_spec import EncoderMismatchError
from bahe_tasks.engines.inline import run_day
from bahe_tasks.landing import LandingNotFoundError
from bahe_tasks.stages.errors import NothingLandedError
from bahe_tasks.stages.gate_record import record_key
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stages.window import is_held_out
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import champion, connect, versions
from bahe_tasks.stores.partition_records import partition_records

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
NEXT, THIRD = FIRST + timedelta(days=1), FIRST + timedelta(days=2)


@pytest.fixture(autouse=True)
def _one_session(spark):
    """Days run in the session the Spark tests share."""


def training_user(day, share=0.3):
    """A user whose rows of the day are not held out."""
    return next(f"t{n}" for n in range(100) if not is_held_out(f"t{n}", day, share))


def test_a_missing_landing_folder_says_how_to_fill_one(home):
    with pytest.raises(LandingNotFoundError, match="bahe synthesize"):
        run_day(FIRST, home)


def test_a_day_with_nothing_landed_names_the_days_there_are(home, log):
    log.ordinary_day(NEXT)
    with pytest.raises(NothingLandedError, match=f"landed days are {NEXT} to {NEXT}$"):
        run_day(FIRST, home)


def test_files_of_another_ending_are_named_when_nothing_else_landed_and_in_the_status(home, log):
    compressed = home.landing_dir / "impressions" / f"dt={FIRST}" / "part-0.jsonl.gz"
    compressed.parent.mkdir(parents=True)
    compressed.touch()
    with pytest.raises(NothingLandedError, match=rf"not read, .*: impressions/dt={FIRST}/part-0.jsonl.gz$"):
        run_day(FIRST, home)
    log.land("behavior_events", FIRST, [event(FIRST)])
    assert run_day(FIRST, home).message.endswith(f": impressions/dt={FIRST}/part-0.jsonl.gz")
    assert read_status(home)["days"][0]["passed_over_files"] == [f"impressions/dt={FIRST}/part-0.jsonl.gz"]


def test_files_without_a_row_are_an_empty_day_every_time(home, log):
    log.land("impressions", FIRST, [])
    for _ in range(2):
        with pytest.raises(NothingLandedError, match="without a row"):
            run_day(FIRST, home)


def test_a_day_of_events_alone_fills_tables_and_embeddings_and_registers_nothing(home, log):
    log.land("behavior_events", FIRST, [event(FIRST)])
    outcome = run_day(FIRST, home)
    assert (outcome.state, outcome.message) == ("no_impressions", "")
    assert read_table(home.tables_dir, "behavior_embeddings").num_rows == 1
    assert versions(connect(home)) == []


def test_a_day_whose_impressions_are_a_file_without_a_row_says_so(home, log):
    log.land("behavior_events", FIRST, [event(FIRST)])
    log.land("impressions", FIRST, [])
    for _ in range(2):
        outcome = run_day(FIRST, home)
        assert outcome.state == "no_impressions"
        assert outcome.message == f"files without a row in impressions/dt={FIRST}: part-0.jsonl"


def test_a_day_of_one_impression_trains_and_its_gate_says_not_enough_evidence(home, log):
    log.land("impressions", FIRST, [impression(FIRST, 1, user=training_user(FIRST))])
    outcome = run_day(FIRST, home)
    assert outcome.state == "done"
    record = partition_records(home.tables_dir, "gate_results")[record_key(FIRST, "validate_challenger")]
    assert "not_enough_evidence" in record.counts.values()
    assert not {"failed", "errored"} & set(record.counts.values())


def test_a_day_whose_only_impression_is_held_out_has_no_training_rows(home, log):
    user = next(f"h{n}" for n in range(100) if is_held_out(f"h{n}", FIRST, 0.3))
    log.land("impressions", FIRST, [impression(FIRST, 1, user=user)])
    assert run_day(FIRST, home).state == "no_training_rows"


def test_a_one_class_day_is_trained_on_and_not_compared(home, log):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    log.land("impressions", NEXT, [impression(NEXT, n, user=f"u{n}", item="i00", label=0) for n in range(40)])
    assert run_day(NEXT, home).state in ("done", "refused")


def test_an_impression_without_history_or_title_is_scored_by_learned_vectors(home, log):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    log.land("impressions", NEXT, [impression(NEXT, 1, user="stranger", item="untitled")])
    outcome = run_day(NEXT, home)
    assert outcome.message == ""
    scored = read_table(home.tables_dir, "progressive_predictions").to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in scored] == [("stranger", "untitled")]
    assert 0 < scored[0]["click_probability"] < 1


def test_a_backfill_that_starts_late_has_the_histories_and_titles_landed_before(home, log):
    log.ordinary_day(FIRST)
    log.land("impressions", NEXT, [impression(NEXT, n, user=f"u{n % 24}", item="i00", label=n % 2) for n in range(40)])
    run_day(NEXT, home)
    assert {row["dt"] for row in read_table(home.tables_dir, "behavior_events").to_pylist()} == {FIRST}
    assert read_table(home.tables_dir, "user_sequences").num_rows == 48  # 24 users, 2 text features
    assert read_table(home.tables_dir, "impressions")["title_key"].null_count == 0
    assert partition_records(home.tables_dir, "impressions").keys() == {str(NEXT)}


def test_a_day_before_the_first_one_leaves_the_champion_and_makes_later_models_stale(home, log):
    log.ordinary_day(FIRST)
    log.ordinary_day(NEXT)
    run_day(NEXT, home)
    outcome = run_day(FIRST, home)
    assert outcome.state == "done"
    assert not outcome.results["promote_champion"]["promoted"]
    assert champion(connect(home)).day == NEXT
    assert outcome.results["publish_embeddings"]["state"] == "not_champion"


def test_a_parent_of_another_encoder_is_refused_by_name(home, log):
    log.ordinary_day(FIRST)
    log.ordinary_day(NEXT)
    run_day(FIRST, home)
    other = replace(home, encoder=replace(home.encoder, num_shallow_layers=2))
    with pytest.raises(EncoderMismatchError, match="another"):
        run_day(NEXT, other)


def test_a_checkpoint_that_does_not_exist_is_refused_by_name(home, log):
    log.ordinary_day(FIRST)
    with pytest.raises(CheckpointNotFoundError, match="no-such-checkpoint"):
        run_day(FIRST, replace(home, encoder=replace(home.encoder, checkpoint="no-such-checkpoint")))


def test_refused_inputs_stop_the_day_are_unread_by_others_and_can_be_accepted(home, log):
    log.ordinary_day(FIRST)
    log.land("behavior_events", FIRST, ["not json"] * 100, name="broken.jsonl")
    log.ordinary_day(NEXT)
    refused = run_day(FIRST, home)
    assert (refused.state, list(refused.results)) == ("refused", ["dedup_behaviors"])
    assert re.search(
        r"quarantined_share\) failed: 0\.36\d*, .*max_value=0\.2 \(gate\.max_quarantined_share\)", refused.message
    )
    assert read_status(home)["days"][0]["gate"] == "inputs_refused"
    run_day(NEXT, home)
    of_next = [row for row in read_table(home.tables_dir, "user_sequences").to_pylist() if row["dt"] == NEXT]
    assert all(time.date() == NEXT for row in of_next for time in row["occurred_at"])
    assert run_day(FIRST, home, accept_reason="known outage").state == "done"
    assert read_status(home)["days"][0]["accepted"] == "known outage"
    assert run_day(FIRST, home).results["validate_inputs"]["gate"] == "accepted"
    assert run_day(FIRST, home, force=True).results["validate_inputs"]["gate"] == "accepted"  # the very same rows
    assert run_day(NEXT, home, force=True, accept_reason="whatever").results["validate_inputs"]["gate"] == "passed"


def test_impressions_that_are_all_broken_refuse_the_day(home, log):
    log.ordinary_day(FIRST)
    log.land("impressions", FIRST, [{"impression_id": "x"}])
    outcome = run_day(FIRST, home)
    assert outcome.state == "refused"
    assert "impressions_lost" in outcome.message


def test_a_new_text_feature_and_column_extend_the_model_and_a_vanished_one_is_empty(home, log):
    lenient = replace(home.gate, max_auc_loss=1.0, min_calibration=0.0, max_calibration=100.0)
    home = replace(home, gate=lenient)  # what the new inputs do to two dozen rows is not what is asked here
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    users = [f"u{n}" for n in range(24)]
    log.land("behavior_events", NEXT, [{**event(NEXT, user), "feature": "searches"} for user in users])
    log.land(
        "impressions",
        NEXT,
        [impression(NEXT, n, user=user, item="i00", label=n % 2, cat_page="home") for n, user in enumerate(users)],
    )
    assert run_day(NEXT, home).state == "done"
    log.land(
        "impressions",
        NEXT + timedelta(days=1),
        [impression(NEXT + timedelta(days=1), n, user=user, label=n % 2) for n, user in enumerate(users)],
    )
    assert run_day(NEXT + timedelta(days=1), home).state == "done"


def test_relanding_a_day_changes_its_rows_and_makes_a_version_that_supersedes_the_first(home, log):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    log.ordinary_day(FIRST, users=30)
    assert run_day(FIRST, home).state == "done"
    assert read_table(home.tables_dir, "impressions").num_rows == 90
    first, second = versions(connect(home))
    assert (first.superseded, second.superseded) == (True, False)
    assert champion(connect(home)).version == 2


def test_a_day_landed_again_without_impressions_takes_its_model_and_predictions_out_of_force(home, log):
    for day in (FIRST, NEXT):
        log.ordinary_day(day)
        run_day(day, home)
    impressions = home.landing_dir / "impressions" / f"dt={NEXT}" / "part-0.jsonl"
    rows = impressions.read_text()
    impressions.write_text("")
    assert run_day(NEXT, home).state == "no_impressions"
    assert read_table(home.tables_dir, "progressive_predictions").num_rows == 0
    day = read_status(home)["days"][1]
    assert (day["impressions"], day["champion_version"], day["gate"]) == (0, None, None)
    assert read_status(home)["champion"] == {"version": 2, "day": str(NEXT), "in_force": False}
    assert "no longer in force" in CliRunner().invoke(app, ["status", "--home", str(home.home)]).stderr
    log.ordinary_day(THIRD)
    assert run_day(THIRD, home).results["fine_tune"]["parent_version"] == 1
    assert f"{NEXT} {THIRD}" in versions(connect(home))[-1].tags["training_days"]  # rows held out on FIRST are of NEXT
    impressions.write_text(rows)
    assert run_day(NEXT, home).results["register_challenger"]["version"] == 2
    assert read_status(home)["days"][1]["champion_version"] == 2
    assert [day["stale"] for day in read_status(home)["days"]] == [False, False, True]


def test_forcing_a_day_gives_the_same_rows(home, log):
    log.ordinary_day(FIRST)
    run_day(FIRST, home)
    before = {
        name: sorted(map(str, read_table(home.tables_dir, name).to_pylist()))
        for name in ("impressions", "user_sequences", "behavior_embeddings")
    }
    outcome = run_day(FIRST, home, force=True)
    assert outcome.state == "done"
    assert before == {name: sorted(map(str, read_table(home.tables_dir, name).to_pylist())) for name in before}
