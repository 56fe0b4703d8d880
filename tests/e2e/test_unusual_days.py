"""Days as real logs have them: empty, of one row, of one class, late, without titles, with a broken parent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from conftest import FIRST, at

from bahe_tasks.checkpoint import CheckpointNotFoundError
from bahe_tasks.core.model_spec import EncoderMismatchError
from bahe_tasks.engines import inline
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
NEXT = FIRST + timedelta(days=1)


@pytest.fixture(autouse=True)
def _one_session(spark):
    """Days run in the session the Spark tests share."""


def impression(day, number, *, user="u0", item="i0", label=1, hour=12, **more):
    return {
        "impression_id": f"{day}-{number}",
        "user_id": user,
        "item_id": item,
        "shown_at": at(day, hour),
        "label": label,
        **more,
    }


def event(day, user="u0", text="order takeout", hour=6):
    return {"user_id": user, "feature": "bills", "occurred_at": at(day, hour), "text": text}


def training_user(day, share=0.3):
    """A user whose rows of the day are not held out."""
    return next(f"t{n}" for n in range(100) if not is_held_out(f"t{n}", day, share))


def kill_in(task, day, config, monkeypatch):
    """Run the day until that task begins."""

    def killed(*_arguments, **_named):
        raise KeyboardInterrupt(task)

    killed.__name__ = task
    with monkeypatch.context() as patch:
        patch.setattr(inline, task, killed)
        with pytest.raises(KeyboardInterrupt):
            run_day(day, config)


def test_a_missing_landing_folder_says_how_to_fill_one(home):
    with pytest.raises(LandingNotFoundError, match="bahe synthesize"):
        run_day(FIRST, home)


def test_a_day_with_nothing_landed_names_the_days_there_are(home, log):
    log.ordinary_day(NEXT)
    with pytest.raises(NothingLandedError, match=f"landed days are {NEXT}"):
        run_day(FIRST, home)


def test_files_without_a_row_are_an_empty_day_every_time(home, log):
    log.land("impressions", FIRST, [])
    for _ in range(2):
        with pytest.raises(NothingLandedError, match="without a row"):
            run_day(FIRST, home)


def test_a_day_of_events_alone_fills_tables_and_embeddings_and_registers_nothing(home, log):
    log.land("behavior_events", FIRST, [event(FIRST)])
    assert run_day(FIRST, home).state == "no_impressions"
    assert read_table(home.tables_dir, "behavior_embeddings").num_rows == 1
    assert versions(connect(home)) == []


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
    assert "quarantined_share" in refused.message
    assert read_status(home)["days"][0]["gate"] == "inputs_refused"
    run_day(NEXT, home)
    of_next = [row for row in read_table(home.tables_dir, "user_sequences").to_pylist() if row["dt"] == NEXT]
    assert all(time.date() == NEXT for row in of_next for time in row["occurred_at"])
    assert run_day(FIRST, home, accept_reason="known outage").state == "done"
    assert run_day(FIRST, home).results["validate_inputs"]["gate"] == "accepted"
    assert run_day(FIRST, home, force=True).results["validate_inputs"]["gate"] == "accepted"  # the very same rows


def test_a_failed_day_of_a_backfill_says_which_task_failed(home, log, monkeypatch):
    def broken(*_arguments, **_named):
        raise OSError("no disk")

    broken.__name__ = "validate_inputs"
    log.ordinary_day(FIRST)
    monkeypatch.setattr(inline, "validate_inputs", broken)
    (outcome,) = inline.run_backfill(FIRST, FIRST, home)
    assert (outcome.state, outcome.message) == ("failed", "OSError: no disk")
    assert outcome.task_states == {"dedup_behaviors": "success", "validate_inputs": "failed"}
    assert outcome.seconds > 0


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


def test_a_day_killed_after_any_task_is_finished_by_the_next_run(home, log, monkeypatch, tmp_path):
    """The reference is an undisturbed home with the same log."""
    log.ordinary_day(FIRST)
    for task in (
        "validate_inputs",
        "encode_behaviors",
        "fine_tune",
        "register_challenger",
        "promote_champion",
        "publish_embeddings",
    ):
        kill_in(task, FIRST, home, monkeypatch)
    assert run_day(FIRST, home).state == "done"
    undisturbed = replace(home, home=tmp_path / "other", landing=replace(home.landing, folder=str(home.landing_dir)))
    run_day(FIRST, undisturbed)
    for name in ("impressions", "user_sequences", "behavior_embeddings", "user_embeddings", "gate_results"):
        ours, theirs = (sorted(map(str, read_table(c.tables_dir, name).to_pylist())) for c in (home, undisturbed))
        assert ours == theirs
    assert len(versions(connect(home))) == 1


def test_a_day_written_anew_and_killed_before_its_gate_is_unread_until_it_is_run_again(home, log, monkeypatch):
    log.ordinary_day(FIRST)
    log.ordinary_day(NEXT)
    run_day(FIRST, home)
    log.ordinary_day(FIRST, users=30)
    kill_in("validate_inputs", FIRST, home, monkeypatch)

    def dates_read_by_next() -> set:
        assert run_day(NEXT, home).state == "done"
        of_next = [row for row in read_table(home.tables_dir, "user_sequences").to_pylist() if row["dt"] == NEXT]
        return {time.date() for row in of_next for time in row["occurred_at"]}

    assert read_status(home)["days"][0]["gate"] == "inputs_not_judged"
    assert dates_read_by_next() == {NEXT}
    run_day(FIRST, home)
    assert dates_read_by_next() == {FIRST, NEXT}


def test_days_that_died_before_they_were_encoded_are_encoded_by_the_one_that_trains_on_them(home, log, monkeypatch):
    home = replace(home, gate=replace(home.gate, gate_days=1, held_out_share=0.0))
    home = replace(home, landing=replace(home.landing, label_horizon_days=0))  # the window reaches back a day
    days = [FIRST + timedelta(days=n) for n in range(4)]
    for day in days:
        log.ordinary_day(day)
    log.land("behavior_events", NEXT, [event(NEXT, user="u99", text="of this day alone", hour=4)], name="p1.jsonl")
    log.land("impressions", NEXT, [impression(NEXT, "x", user="u99", item="i00")], name="p1.jsonl")
    run_day(FIRST, home)
    kill_in("encode_behaviors", NEXT, home, monkeypatch)
    kill_in("encode_behaviors", days[2], home, monkeypatch)
    outcome = run_day(days[3], home)
    assert (outcome.state, outcome.results["fine_tune"]["rows"]) == ("done", 3 * 72 + 1)


def test_rows_of_days_without_a_model_are_trained_on_by_the_next_one_and_none_twice(home, log, monkeypatch):
    """Labels are usable a day later; nothing lands on the third day, and the run of the fifth is killed."""
    home = replace(
        home, landing=replace(home.landing, label_delay_s=86400), gate=replace(home.gate, held_out_share=0.0)
    )
    landed = [FIRST + timedelta(days=n) for n in (0, 1, 3, 4, 5)]
    for day in landed:
        log.ordinary_day(day)
    assert run_day(landed[0], home).state == "no_training_rows"  # no label is known yet
    rows = [run_day(landed[1], home).results["fine_tune"]["rows"]]
    rows.append(run_day(landed[2], home).results["fine_tune"]["rows"])
    kill_in("fine_tune", landed[3], home, monkeypatch)
    rows.append(run_day(landed[4], home).results["fine_tune"]["rows"])
    a_day = len(read_table(home.tables_dir, "impressions")) // len(landed)
    assert rows == [a_day, a_day, 2 * a_day]
    newest = max(versions(connect(home)), key=lambda version: version.day)
    assert newest.tags["training_days"] == f"{landed[3]} {landed[4]}"
