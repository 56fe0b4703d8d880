"""What ends the days in this process, told by a first task that fails at once."""

from __future__ import annotations

import sys
from datetime import date

import pytest

from bahe_tasks import cli
from bahe_tasks.checkpoint import CheckpointNotFoundError
from bahe_tasks.core.compiled_layers import NothingToCompileError
from bahe_tasks.core.llm_cut import LayerCountError
from bahe_tasks.core.llm_parts import UnsplittableArchitectureError
from bahe_tasks.core.lora import NothingToAdaptError
from bahe_tasks.core.model_spec import EncoderMismatchError, ModelMismatchError
from bahe_tasks.core.tokens import NoRoomForTextError
from bahe_tasks.core.train import NothingToRecomputeError
from bahe_tasks.core.train_processes import TooManyProcessesError
from bahe_tasks.core.training_step import UnknownLabelError
from bahe_tasks.engines import inline
from bahe_tasks.engines.day_outcome import DayOutcome, why_without_model
from bahe_tasks.stages.model_of_day import MissingColumnError, PoolingError
from bahe_tasks.wrong_use import WrongUseError

OF_SETTINGS = (
    CheckpointNotFoundError,
    EncoderMismatchError,
    LayerCountError,
    MissingColumnError,
    ModelMismatchError,
    NoRoomForTextError,
    NothingToAdaptError,
    NothingToCompileError,
    NothingToRecomputeError,
    PoolingError,
    TooManyProcessesError,
    UnknownLabelError,
    UnsplittableArchitectureError,
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a verb as a shell does, the first task of its days being the one given; return its exit status and the days begun."""
    (tmp_path / "bahe.yaml").write_text("", encoding="utf-8")

    def run(task, *verb):
        begun = []

        def dedup_behaviors(day, _config, **_options):
            begun.append(day.day)
            task()

        monkeypatch.setattr(inline, "dedup_behaviors", dedup_behaviors)
        monkeypatch.setattr(sys, "argv", ["bahe", *verb, "--home", str(tmp_path)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, begun

    return run


@pytest.fixture
def backfill(run):
    """Run a backfill of two days so."""
    return lambda task: run(task, "backfill", "2024-01-01", "2024-01-02")


def cancelled_by_ctrl_c():
    """As PySpark does: the job's own error is raised while the interrupt passes."""
    try:
        raise KeyboardInterrupt
    finally:
        raise RuntimeError("Job 3 cancelled")


def broken():
    raise RuntimeError("a bad day")


def misconfigured():
    raise TooManyProcessesError("training.num_processes is 2, but torch sees 0 GPUs")


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


def test_a_setting_that_a_day_cannot_be_run_with_is_wrong_use(run, capsys):
    assert run(misconfigured, "run-day", "2024-01-01") == (2, [1])
    assert "TooManyProcessesError: training.num_processes is 2" in capsys.readouterr().err
    assert run(broken, "run-day", "2024-01-01") == (1, [1])


def test_in_a_backfill_a_day_of_wrong_settings_is_a_day_that_fails(backfill):
    assert backfill(misconfigured) == (1, [1, 2])


@pytest.mark.parametrize("withdrawn", [True, False])
def test_why_a_day_has_no_champion_is_said_once(run, monkeypatch, capsys, withdrawn):
    results = {
        "promote_champion": {"promoted": False, "reason": "of this reason", "withdrawn": withdrawn},
        "publish_embeddings": {"state": "not_champion"},
    }
    done = DayOutcome(date(2024, 1, 1), "done", 1.0, results=results, message=why_without_model(results))
    monkeypatch.setattr(inline, "run_backfill", lambda *_days, **_options: [done])
    assert run(broken, "run-day", "2024-01-01") == (0, [])
    assert capsys.readouterr().err.count("of this reason") == 1


@pytest.mark.parametrize("error", OF_SETTINGS)
def test_an_error_that_a_setting_mends_is_wrong_use(error):
    assert issubclass(error, WrongUseError)
