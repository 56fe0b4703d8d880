"""Rollbacks in a real MLflow registry: done, cut short, run again."""

from dataclasses import replace
from datetime import date

import pytest

from bahe_tasks.stores.model_promotion import end_rollback, promote, record_gate, rollback
from bahe_tasks.stores.model_registry import champion, version_of, versions
from bahe_tasks.stores.promotion_rules import parent_for

D1, D2, D3 = date(2013, 9, 24), date(2013, 9, 25), date(2013, 9, 26)


def champion_number(registry):
    return champion(registry).version


def test_a_rollback_moves_the_champion_and_withdraws_what_is_later(registry, add):
    first, second, third = add(D1, "f1"), add(D2, "f2"), add(D3, "f3")
    back, withdrawn = rollback(registry, to=first, reason="bad titles")
    assert back.version == champion_number(registry) == first
    assert [(v.version, v.withdrawn, v.reason) for v in withdrawn] == [
        (second, True, "bad titles"),
        (third, True, "bad titles"),
    ]
    assert parent_for(versions(registry), date(2013, 9, 27)).version == first
    moved, why = promote(registry, third)
    assert not moved
    assert why == f"version {third} was withdrawn: bad titles; `bahe run-day {D3} --force` trains the day anew"


def test_a_run_that_was_under_way_while_its_parent_was_rolled_back_makes_no_champion(registry, add):
    first, second = add(D1, "f1"), add(D2, "f2")
    rollback(registry, to=first, reason="bad titles")
    third = add(D3, "f3", parent=version_of(registry, second))
    assert version_of(registry, third).gate == "passed"
    assert promote(registry, third)[1].startswith(
        f"version {third} was withdrawn: its parent, version {second}, was withdrawn; `bahe run-day {D3} --force`"
    )
    assert champion_number(registry) == first
    assert parent_for(versions(registry), date(2013, 9, 27)).version == first, "nor does a later day go on from it"
    registry.client.delete_model_version(registry.model_name, str(second))
    fourth = add(date(2013, 9, 27), "f4", parent=replace(version_of(registry, first), version=second))
    assert champion_number(registry) == fourth, "a parent that was deleted was not withdrawn"


def test_a_rollback_cut_short_finds_the_same_target_again(registry, add, monkeypatch):
    first, _, third = add(D1, "f1"), add(D2, "f2"), add(D3, "f3")

    def killed(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(registry, to=None, reason="bad")
    assert champion_number(registry) == third
    assert rollback(registry, to=None, reason="bad")[0].day == D2
    assert version_of(registry, first).withdrawn is False


def test_a_rollback_cut_short_after_the_champion_moved_does_not_go_on_to_the_day_before(registry, add):
    first, second, _ = add(D1, "f1"), add(D2, "f2"), add(D3, "f3")
    for _ in range(2):
        assert rollback(registry, to=None, reason="bad")[0].version == second
    end_rollback(registry, second)
    assert rollback(registry, to=None, reason="bad")[0].version == first


def test_a_rollback_is_not_undone_by_running_what_was_rolled_back_again(registry, add):
    first, old, new = add(D1, "f1"), add(D2, "f2"), add(D2, "f2b")
    _, withdrawn = rollback(registry, to=None, reason="bad")
    assert [v.version for v in withdrawn] == [old, new]
    assert add(D2, "f2b") == new
    assert parent_for(versions(registry), D3).version == champion_number(registry) == first


def test_a_rollback_to_a_superseded_version_makes_it_stand_again(registry, add):
    first, second = add(D1, "f1"), add(D1, "f1b")
    rollback(registry, to=first, reason="worse")
    assert champion_number(registry) == first
    assert version_of(registry, first).eligible
    assert version_of(registry, second).withdrawn


def test_a_champion_refused_since_gives_way_to_no_older_day_than_the_newest_in_force(registry, add):
    first, second, third = add(D1, "f1"), add(D2, "f2"), add(D3, "f3")
    record_gate(registry, third, "refused", reason="stricter")
    assert not promote(registry, first)[0]
    assert promote(registry, second)[0]


def test_a_rollback_from_a_champion_refused_since_withdraws_it(registry, add):
    _, second = add(D1, "f1"), add(D2, "f2")
    record_gate(registry, second, "refused", reason="stricter")
    assert [v.version for v in rollback(registry, to=None, reason="bad")[1]] == [second]
    record_gate(registry, second, "passed")
    assert not promote(registry, second)[0]
