from dataclasses import replace
from datetime import date

import pytest

from bahe_tasks.stores.promotion_rules import (
    ROLLING_BACK,
    ModelVersion,
    RollbackError,
    eligible,
    parent_for,
    promotion_decision,
    rollback_target,
    stale,
    superseded_by,
    withdrawn_by_rollback,
)

D1, D2, D3 = date(2013, 9, 24), date(2013, 9, 25), date(2013, 9, 26)


def passed(version, day, **changes):
    made = ModelVersion(version, day, fingerprint=f"f{version}", run_id="r", encoder_version="enc", gate="passed")
    return replace(made, **changes)


@pytest.mark.parametrize(
    "change", [{"gate": "pending"}, {"gate": "refused"}, {"gate": "errored"}, {"superseded": True}, {"withdrawn": True}]
)
def test_only_a_passed_version_that_stands_is_eligible(change):
    assert eligible([passed(1, D1, **change), passed(2, D1)]) == [passed(2, D1)]


def test_the_parent_is_of_the_last_day_before_whatever_came_later():
    versions = [passed(1, D1), passed(2, D3), passed(3, D2, gate="refused")]
    assert parent_for(versions, D3) == passed(1, D1)
    assert parent_for(versions, D1) is None
    assert parent_for(versions, date(2014, 1, 1)) == passed(2, D3)


def test_of_two_eligible_versions_of_a_day_the_later_one_is_parent():
    assert parent_for([passed(2, D1), passed(1, D1)], D2) == passed(2, D1)


def test_a_version_is_stale_when_its_parent_no_longer_stands_for_its_day():
    child = passed(2, D2, parent_version=1, parent_fingerprint="f1")
    assert stale([passed(1, D1), child]) == frozenset()
    assert stale([passed(1, D1, superseded=True), child, passed(3, D1)]) == {2}
    assert stale([passed(1, D1, withdrawn=True), child]) == {2}


def test_a_retrained_parent_with_the_same_fingerprint_leaves_the_child_fresh():
    child = passed(2, D2, parent_version=1, parent_fingerprint="f1")
    assert stale([passed(1, D1, superseded=True), child, passed(3, D1, fingerprint="f1")]) == frozenset()


def test_a_version_without_parent_is_stale_once_an_earlier_day_has_a_model():
    assert stale([passed(2, D2)]) == frozenset()
    assert stale([passed(1, D1), passed(2, D2)]) == {2}


def test_a_version_is_stale_when_a_day_between_it_and_its_parent_was_filled_in():
    child = passed(2, D3, parent_version=1, parent_fingerprint="f1")
    between = passed(3, D2, parent_version=1, parent_fingerprint="f1")
    assert stale([passed(1, D1), child]) == frozenset()
    assert stale([passed(1, D1), child, between]) == {2}
    assert stale([passed(1, D1), child, replace(between, gate="refused")]) == frozenset()


def test_a_version_is_stale_whose_parent_is():
    versions = [
        passed(1, D1, superseded=True),
        passed(2, D2, parent_version=1, parent_fingerprint="f1"),
        passed(3, D3, parent_version=2, parent_fingerprint="f2"),
        passed(4, D1),
    ]
    assert stale(versions) == {2, 3}


def test_a_pass_supersedes_the_other_eligible_versions_of_its_day():
    versions = [passed(1, D1), passed(2, D2), passed(3, D1, gate="refused"), passed(4, D1)]
    assert superseded_by(versions, passed(4, D1)) == [passed(1, D1)]


@pytest.mark.parametrize(
    ("candidate", "champion", "moves", "why"),
    [
        (passed(1, D1), None, True, "first champion"),
        (passed(2, D2), passed(1, D1), True, "follows"),
        (passed(2, D1), passed(1, D1), True, "follows"),
        (passed(3, D1), passed(2, D2), False, "2013-09-24 is before 2013-09-25"),
        (passed(1, D1), passed(1, D1), False, "already"),
        (passed(1, D1), passed(2, D2, gate="refused"), True, "replaces 2, refused since"),
        (passed(2, D2, gate="refused"), passed(1, D1), False, "not passed the gate"),
        (passed(2, D2, gate="errored"), None, False, "not passed the gate"),
        (passed(2, D2, gate="pending"), None, False, "not passed the gate"),
        (passed(2, D2, superseded=True), passed(1, D1), False, "superseded"),
        (passed(2, D2, withdrawn=True, reason="bad day"), passed(1, D1), False, "withdrawn: bad day"),
    ],
)
def test_the_champion_moves_only_forward_and_only_to_a_version_that_stands(candidate, champion, moves, why):
    decision, reason = promotion_decision(candidate, champion)
    assert decision is moves
    assert why in reason


def test_a_rollback_without_target_goes_to_the_day_before_the_champion():
    versions = [passed(1, D1), passed(2, D2), passed(3, D3)]
    assert rollback_target(versions, versions[1], to=None) == versions[0]


def test_a_rollback_without_target_that_was_cut_short_goes_where_it_went():
    going_to = passed(2, D2, tags={ROLLING_BACK: "true"})
    assert rollback_target([passed(1, D1), going_to], going_to, to=None) == going_to
    assert rollback_target([passed(1, D1), going_to], going_to, to=1) == passed(1, D1)


def test_a_rollback_withdraws_every_later_eligible_version():
    versions = [passed(1, D1), passed(2, D2), passed(3, D3), passed(4, D3, gate="refused")]
    assert withdrawn_by_rollback(versions, versions[0]) == versions[1:3]


def test_a_rollback_withdraws_what_a_gate_is_about_to_judge():
    versions = [passed(1, D1), passed(2, D2), passed(3, D3, gate="pending"), passed(4, D3, gate="errored")]
    assert withdrawn_by_rollback(versions, versions[0]) == versions[1:3]


def test_a_rollback_withdraws_superseded_versions_too_that_a_rerun_of_their_day_would_find():
    versions = [passed(1, D1), passed(2, D2, superseded=True), passed(3, D2), passed(4, D3, withdrawn=True)]
    assert withdrawn_by_rollback(versions, versions[0]) == versions[1:3]


def test_a_rollback_leaves_one_version_of_its_day_in_force():
    versions = [passed(1, D1, superseded=True), passed(2, D1), passed(3, D1, superseded=True)]
    assert withdrawn_by_rollback(versions, versions[2]) == [versions[1]]


def test_a_rollback_may_go_back_to_a_superseded_version_of_the_champions_day():
    versions = [passed(1, D1, superseded=True), passed(2, D1)]
    assert rollback_target(versions, versions[1], to=1) == versions[0]
    assert withdrawn_by_rollback(versions, versions[0]) == [versions[1]]


@pytest.mark.parametrize(
    ("champion", "to", "why"),
    [
        (None, None, "no champion"),
        (passed(1, D1), None, "no eligible version is older"),
        (passed(1, D1), 9, "no version 9"),
        (passed(1, D1), 3, "newer than champion"),
        (passed(4, D3), 2, "refused"),
        (passed(4, D3), 5, "withdrawn"),
    ],
)
def test_a_rollback_with_nowhere_to_go_says_why(champion, to, why):
    known = [passed(1, D1), passed(2, D2, gate="refused"), passed(3, D3), passed(5, D1, withdrawn=True)]
    with pytest.raises(RollbackError, match=why):
        rollback_target(known, champion, to=to)
