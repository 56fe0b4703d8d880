"""The code revision a model version is tagged with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bahe_tasks.stages import lineage
from bahe_tasks.stages.lineage import code_revision


def _git(root: Path, *arguments: str) -> str:
    told = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(told, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _repository(root: Path, module: str, *, ignored: str = "") -> Path:
    """Commit a .gitignore and what it leaves of a package with this module; return the module's file."""
    file = root / module
    file.parent.mkdir(parents=True)
    file.touch()
    (root / ".gitignore").write_text(ignored)
    _git(root, "init", "--quiet")
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", "first")
    return file


def test_code_of_a_clone_is_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _repository(tmp_path, "bahe_tasks/stages/lineage.py")
    monkeypatch.setattr(lineage, "__file__", str(file))
    head = _git(tmp_path, "rev-parse", "HEAD")
    assert code_revision() == head
    file.write_text("changed")
    assert code_revision() == f"{head}+changes"


def test_code_installed_inside_another_repository_is_not_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ".venv/lib/python3/site-packages/bahe_tasks/stages/lineage.py"
    monkeypatch.setattr(lineage, "__file__", str(_repository(tmp_path, installed, ignored=".venv/")))
    assert not code_revision().startswith(_git(tmp_path, "rev-parse", "HEAD"))
