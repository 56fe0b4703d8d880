"""Which version scores while the embeddings of a new champion are not published."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.stages import score_pairs
from bahe_tasks.stages.score_pairs import NothingToScoreWithError
from bahe_tasks.stores.promotion_rules import ModelVersion


def version(number: int, **state) -> ModelVersion:
    """Version n is of day n unless said otherwise."""
    day = date(2024, 1, 1) + timedelta(days=state.pop("day", number) - 1)
    of = {"run_id": "r", "encoder_version": "e", "gate": "passed"}
    return replace(ModelVersion(number, day, f"f{number}", **of), **state)


@pytest.fixture
def scored_with(monkeypatch):
    """Return the number of the version that scores, of those known and the numbers of those published."""

    def chosen(champion, known, published):
        monkeypatch.setattr(score_pairs, "versions", lambda _: known)
        monkeypatch.setattr(score_pairs, "published_record", lambda v, _: "whole" if v.version in published else None)
        found, record = score_pairs._published_version(champion, None, None)
        assert record == "whole"
        return found.version

    return chosen


def test_a_champion_that_is_published_scores(scored_with):
    known = [version(n) for n in (1, 2, 3)]
    assert scored_with(known[1], known, {1, 2, 3}) == 2


def test_between_promotion_and_publishing_the_newest_version_before_that_is_whole_scores(scored_with):
    known = [version(n) for n in (1, 2, 3, 4)]
    assert scored_with(known[3], known, {1, 2, 3}) == 3
    assert scored_with(known[3], known, {1, 2}) == 2


@pytest.mark.parametrize("state", [{"withdrawn": True}, {"gate": "refused"}, {"gate": "pending"}, {"superseded": True}])
def test_what_is_not_in_force_never_scores_in_place_of_the_champion(scored_with, state):
    known = [version(1), version(2, **state), version(3)]
    assert scored_with(known[2], known, {1, 2}) == 1


def test_after_the_champion_moved_back_no_later_day_scores(scored_with):
    known = [version(1), version(2), version(3), version(4, day=2)]
    assert scored_with(known[1], known, {1, 3, 4}) == 1
    with pytest.raises(NothingToScoreWithError, match=r"running now, or was cut short .*: `bahe run-day 2024-01-02`"):
        scored_with(known[1], known, {3, 4})


@pytest.mark.parametrize("champion", [2, 3])
def test_that_another_version_scored_is_said(tmp_path, monkeypatch, champion):
    (tmp_path / "bahe.yaml").touch()
    told = {"model_version": 2, "champion_version": champion}
    monkeypatch.setattr(score_pairs, "score_file", lambda *_: told)
    said = CliRunner().invoke(app, ["score", "pairs.csv", "out.csv", "--home", str(tmp_path)])
    assert said.exit_code == 0
    assert ("scored with version 2: the embeddings of champion 3 are not published yet" in said.stderr) is (
        champion == 3
    )
