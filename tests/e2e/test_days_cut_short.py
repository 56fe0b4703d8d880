"""Days that are killed, fail or never come: what later ones read, train on and make good."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from conftest import FIRST, event, impression, kill_in

from bahe_tasks.config import RegistryConfig
from bahe_tasks.core.model_spec import EncoderMismatchError
from bahe_tasks.engines import inline
from bahe_tasks.engines.inline import run_day
from bahe_tasks.stages.errors import ParentChangedError
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stages.roll_back import roll_back
from bahe_tasks.stages.score_pairs import score_file
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.model_registry import champion, connect, versions

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
NEXT = FIRST + timedelta(days=1)


@pytest.fixture(autouse=True)
def _one_session(spark):
    """Days run in the session the Spark tests share."""


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


def test_a_model_whose_parent_is_rolled_back_before_its_gate_is_not_judged(home, log, monkeypatch):
    days = [FIRST + timedelta(days=n) for n in range(3)]
    for day in days:
        log.ordinary_day(day)
    for day in days[:2]:
        run_day(day, home)
    register = inline.register_challenger

    def register_challenger(*args, **named):
        made = register(*args, **named)
        roll_back(home, to=None, reason="bad")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(inline, "register_challenger", register_challenger)
        with pytest.raises(ParentChangedError, match=r"version 3 of .* from version 2, and its day has version 1"):
            run_day(days[2], home)
    assert champion(connect(home)).version == 1
    assert run_day(days[2], home).results["fine_tune"]["parent_version"] == 1
    assert champion(connect(home)).version == 4


def test_a_model_of_a_withdrawn_parent_is_trained_again_though_the_parent_was_from_the_same_rows(
    home, log, monkeypatch
):
    days = [FIRST + timedelta(days=n) for n in range(3)]
    for day in days:
        log.ordinary_day(day)
    for day in days[:2]:
        run_day(day, home)
    kill_in("validate_challenger", days[2], home, monkeypatch)
    roll_back(home, to=None, reason="bad")
    assert run_day(days[1], home, force=True).results["register_challenger"]["version"] == 4
    done = run_day(days[2], home).results
    assert done["fine_tune"]["parent_version"] == 4
    assert done["register_challenger"]["version"] == 5
    assert champion(connect(home)).parent_version == 4


def test_before_a_new_champion_is_published_the_one_before_scores_and_what_is_withdrawn_never(
    home, log, tmp_path, monkeypatch
):
    days = [FIRST, FIRST + timedelta(days=1)]
    for day in days:
        log.ordinary_day(day)
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nu0,i00\nu1,i10\n", encoding="utf-8")

    def scored() -> tuple[int, int, str]:
        told = score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", home)
        return told["champion_version"], told["model_version"], (tmp_path / "out.csv").read_text(encoding="utf-8")

    run_day(days[0], home)
    by_the_first = scored()
    assert by_the_first[:2] == (1, 1)
    kill_in("publish_embeddings", days[1], home, monkeypatch)
    assert scored() == (2, 1, by_the_first[2])
    run_day(days[1], home)
    assert scored()[:2] == (2, 2)
    assert roll_back(home, to=None, reason="bad")["champion_before"] == 2
    assert scored() == by_the_first


def test_days_of_two_processes_take_turns(home, log, monkeypatch):
    log.ordinary_day(FIRST)
    begun, outcomes, original = threading.Event(), [], inline.dedup_behaviors

    def dedup_behaviors(*args, **named):
        begun.set()
        return original(*args, **named)

    monkeypatch.setattr(inline, "dedup_behaviors", dedup_behaviors)
    day = threading.Thread(target=lambda: outcomes.append(run_day(FIRST, home)))
    with one_at_a_time(home.home / "work" / "day.lock"):
        day.start()
        assert not begun.wait(1)
    day.join(120)
    assert [outcome.state for outcome in outcomes] == ["done"]


def test_days_written_under_another_encoder_are_caught_up_with_once_the_setting_is_restored(home, log):
    config = replace(home, landing=replace(home.landing, label_horizon_days=0))
    other = replace(config, encoder=replace(config.encoder, prompt="they said: {text}"))
    days = [FIRST + timedelta(days=n) for n in range(4)]
    for day in days:
        log.ordinary_day(day)
        log.land("behavior_events", day, [event(day, text=f"something of {day}")], name="more.jsonl")
    run_day(days[0], config)
    for day in days[1:3]:
        with pytest.raises(EncoderMismatchError):
            run_day(day, other)
    done = run_day(days[3], config)
    assert (done.state, done.results["fine_tune"]["parent_version"]) == ("done", 1)
    of_window = read_table(config.tables_dir, "user_sequences").to_pylist()
    keys = {key for row in of_window for key in row["behavior_keys"]}
    version = done.results["encode_behaviors"]["encoder_version"]
    stored = read_table(config.tables_dir, "behavior_embeddings", partitions=f"encoder_version = '{version}'")
    assert keys <= set(stored["behavior_key"].to_pylist())
    assert stored.num_rows == len(set(stored["behavior_key"].to_pylist()))


def test_a_day_whose_registry_was_lost_says_so_and_one_of_a_new_lineage_does_not(home, log, caplog, tmp_path):
    for day in (FIRST, NEXT):
        log.ordinary_day(day)
    assert run_day(FIRST, home).state == "done"
    assert run_day(NEXT, replace(home, registry=RegistryConfig(model_name="begun anew"))).state == "done"
    assert "the registry holds none of them" not in caplog.text
    lost = RegistryConfig(tracking_uri=f"sqlite:///{tmp_path / 'empty.db'}")
    assert run_day(NEXT, replace(home, registry=lost)).state == "done"
    assert f"models of 2 days up to {NEXT}, and the registry holds none of them" in caplog.text
