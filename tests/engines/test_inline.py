"""What ends a backfill in this process, told by a first task that fails at once."""

from __future__ import annotations

import sys

import pytest

from bahe_tasks import cli
from bahe_tasks.engines import inline


@pytest.fixture
def backfill(tmp_path, monkeypatch):
    """Run a backfill of two days as a shell does, its first task being the one given; return its exit status and the days begun."""
    (tmp_path / "bahe.yaml").write_text("", encoding="utf-8")

    def run(task):
        begun = []

        def dedup_behaviors(day, _config, **_options):
            begun.append(day.day)
            task()

        monkeypatch.setattr(inline, "dedup_behaviors", dedup_behaviors)
        monkeypatch.setattr(sys, "argv", ["bahe", "backfill", "2024-01-01", "2024-01-02", "--home", str(tmp_path)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, begun

    return run


def cancelled_by_ctrl_c():
    """As PySpark does: the job's own error is raised while the interrupt passes."""
    try:
        raise KeyboardInterrupt
    finally:
        raise RuntimeError("Job 3 cancelled")


def broken():
    raise RuntimeError("a bad day")


def test_ctrl_c_under_an_error_of_spark_ends_the_backfill(backfill):
    assert backfill(cancelled_by_ctrl_c) == (130, [1])


def test_a_day_that_fails_is_passed(backfill):
    assert backfill(broken) == (1, [1, 2])


def test_a_day_that_fails_shows_where_when_asked(backfill, monkeypatch, capsys):
    monkeypatch.delenv("BAHE_TRACEBACK", raising=False)
    backfill(broken)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("BAHE_TRACEBACK", "1")
    backfill(broken)
    assert 'raise RuntimeError("a bad day")' in capsys.readouterr().err
