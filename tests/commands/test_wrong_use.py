"""Wrong use exits 2 with one sentence that says what is wrong, before anything is written."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from bahe_tasks import cli
from bahe_tasks.commands import console


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "bahe.yaml").write_text("", encoding="utf-8")
    (folder / "pairs.csv").write_text("user_id,item_id\nu,i\n", encoding="utf-8")
    (folder / "folder.csv").mkdir()
    return folder


def answer_of(monkeypatch, capsys, *words):
    """Run the command line as a shell does; return its exit status and what it said on standard error."""
    monkeypatch.setattr(sys, "argv", ["bahe", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics", "--from", "2024-01-03", "--to", "2024-01-02"], "the first day, 2024-01-03, is after the last"),
        (["backfill", "2024-01-03", "2024-01-02"], "the first day, 2024-01-03, is after the last"),
        (["metrics", "--from", ""], "'' is not a day"),
        (["metrics", "--to", ""], "'' is not a day"),
        (["run-day", "2024-01-01", "--accept-inputs", " "], "say why the day is good anyway"),
        (["backfill", "2024-01-01", "2024-01-01", "--accept-inputs", ""], "say why the day is good anyway"),
        (["run-day", "2024-02-30"], "not a day of the calendar"),
        (["rollback", "--to", "99"], "no champion to roll back from"),
        (["score", "HOME/pairs.csv", "HOME/out.txt"], "the ending must be one of"),
        (["score", "HOME/pairs.csv", "HOME/folder.csv"], "folder.csv is a folder; name a file in it"),
        (["score", "HOME/pairs.csv", "HOME/pairs.csv/in/out.csv"], "pairs.csv is no folder that files can be made in"),
        (["score", "HOME/none.csv", "HOME/out.csv"], "cannot be read"),
        (["report", "--out", "HOME"], "Invalid value for '--out'"),
        (["report", "--out", "HOME/pairs.csv/x.html"], "pairs.csv is no folder that files can be made in"),
    ],
)
def test_wrong_use_of_a_home(home, monkeypatch, capsys, words, said):
    words = [word.replace("HOME", str(home)) for word in words]
    status, error = answer_of(monkeypatch, capsys, *words, "--home", home)
    assert (status, said in error) == (2, True), error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["synthesize", "LANDING", "--days", "0"], "days must be at least 1, not 0"),
        (["import", "movietweetings", "SRC", "LANDING"], "does not exist"),
        (["init", "FILE"], "Invalid value for '[HOME]'"),
        (["synthesize", "FILE"], "Invalid value for 'LANDING'"),
        (["init", "~nobody-of-this-name"], "names a user that this machine does not know"),
    ],
)
def test_wrong_use_of_a_source(tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "FILE").touch()
    status, error = answer_of(monkeypatch, capsys, *(tmp_path / word if word.isupper() else word for word in words))
    assert (status, said in error) == (2, True), error
    assert not (tmp_path / "LANDING").exists()


@pytest.mark.parametrize(
    "verb", [["run-day", "2024-01-01"], ["backfill", "2024-01-01", "2024-01-01"], ["ui"], ["compact"]]
)
def test_a_home_that_cannot_be_written_is_told_at_once(verb, home, monkeypatch, capsys):
    (home / "bahe.yaml").rename(home.parent / "bahe.yaml")
    read = console.load_config
    monkeypatch.setattr(
        console,
        "load_config",
        lambda _home, **options: replace(read(home.parent, **options), home=home / "gone"),
    )
    status, error = answer_of(monkeypatch, capsys, *verb, "--home", home)
    assert status == 2
    assert "gone cannot be written (No such file or directory); correct its permissions" in error


def test_an_error_is_a_document_where_one_is_asked_for(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bahe", "metrics", "--from", "x", "--json", "--home", str(home)])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    said = capsys.readouterr()
    told = json.loads(said.out)["error"]
    assert told["kind"] == "InvalidDayError"
    assert said.err == f"error: {told['message']}\n"


def test_with_a_traceback_the_exit_status_is_the_same(home, monkeypatch, capsys):
    monkeypatch.setenv("BAHE_TRACEBACK", "1")
    status, error = answer_of(monkeypatch, capsys, "metrics", "--from", "x", "--home", home)
    assert (status, "Traceback" in error, "error: " in error) == (2, True, True), error


def test_two_home_folders_to_make_are_one_too_many(tmp_path, monkeypatch, capsys):
    status, error = answer_of(monkeypatch, capsys, "init", tmp_path / "a", "--home", tmp_path / "b")
    assert (status, list(tmp_path.iterdir())) == (2, []), error
    monkeypatch.setenv("BAHE_HOME", str(tmp_path / "b"))
    for words in ((tmp_path / "a",), (tmp_path / "c", "--home", tmp_path / "c")):
        assert answer_of(monkeypatch, capsys, "init", *words)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_a_home_folder_is_not_made_where_none_can_be(tmp_path, monkeypatch, capsys):
    status, error = answer_of(monkeypatch, capsys, "init", tmp_path / "a#b")
    assert (status, "a#b has # in its path" in error) == (2, True), error
    assert list(tmp_path.iterdir()) == []
