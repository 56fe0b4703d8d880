"""What a rollback says of the version that was left."""

from __future__ import annotations

import json
from datetime import date

import pytest
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.stages import roll_back
from bahe_tasks.stores.promotion_rules import ModelVersion


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the verb in a home of versions 5 and 6 whose champion is the one given; return its standard output."""
    (tmp_path / "bahe.yaml").touch()

    def said(champion: int, *options: str) -> str:
        day = date(2024, 1, 5)
        of = {"run_id": "r", "encoder_version": "e"}
        five, six = (ModelVersion(n, day, f"f{n}", **of) for n in (5, 6))
        monkeypatch.setattr(roll_back, "connect", lambda _: None)
        monkeypatch.setattr(roll_back, "current_champion", lambda _: {5: five, 6: six}[champion])
        monkeypatch.setattr(roll_back, "rollback", lambda *_, **__: (five, [six]))
        monkeypatch.setattr(roll_back, "publish_embeddings", lambda *_, **__: {"state": "published"})
        answer = CliRunner().invoke(app, ["rollback", "--home", str(tmp_path), *options])
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    return said


def test_the_version_that_was_left_is_told(run):
    assert run(6).splitlines()[0] == "champion back from version 6 to 5"


def test_a_rollback_that_goes_on_says_that_the_champion_had_moved(run):
    assert run(5).splitlines()[0] == "champion was version 5 already"


def test_the_document_names_it_too(run):
    document = json.loads(run(6, "--json"))
    assert (document["champion_before"], document["champion_version"]) == (6, 5)
