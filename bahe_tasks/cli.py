"""The command line: assembles the verbs in `commands/` and turns errors into one sentence and an exit status.

Exit status: 0 done, 1 failed, 2 wrong use, 3 a gate refused. With `--json` an error is a document too, unless it is
that standard output cannot be written.
Verbs import heavy packages inside their bodies, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from bahe_tasks.commands import days, landing, metrics, models, pages, settings, tables
from bahe_tasks.commands.console import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    AnswerLostError,
    answering,
    log,
    show,
    wants_traceback,
)
from bahe_tasks.commands.ranks import run_by_rank
from bahe_tasks.processor_sharing import sleep_while_waiting
from bahe_tasks.wrong_use import WrongUseError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Daily update of an LLM-based click-through-rate model: dedup, encode what is new, fine-tune, gate, publish.",
    epilog="Start with: bahe init · bahe synthesize bahe_home/landing · bahe backfill 2024-01-01 2024-01-03 · bahe report",
)
app.command("init")(landing.init)
app.add_typer(landing.import_app, name="import")
app.command("synthesize")(landing.synthesize)
app.add_typer(settings.config_app, name="config")
app.command("run-day")(days.run_day)
app.command("backfill")(days.backfill)
app.command("status")(days.status)
app.command("metrics")(metrics.metrics)
app.command("score")(models.score)
app.command("rollback")(models.rollback)
app.command("compact")(tables.compact)
app.command("report")(pages.report)
app.command("ui")(pages.ui)
app.command("doctor")(pages.doctor)


def main() -> None:
    """Run the command line."""
    sleep_while_waiting()
    try:
        try:
            _run()
        finally:
            with answering():
                if sys.stdout is not None:  # of a process that was started without one
                    sys.stdout.flush()
    except AnswerLostError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed when Python ends
        _tell_error(str(error))
        sys.exit(EXIT_FAILED)


def _run() -> None:
    try:
        run_by_rank(app)
    except AnswerLostError:
        raise
    except Exception as error:
        if wants_traceback():
            traceback.print_exc()
        wrong_use = isinstance(error, WrongUseError)
        _tell_error(str(error) if wrong_use else f"{type(error).__name__}: {error}")
        if "--json" in sys.argv:
            show({"error": {"kind": type(error).__name__, "message": str(error)}}, as_json=True)
        sys.exit(EXIT_WRONG_USE if wrong_use else EXIT_FAILED)


def _tell_error(sentence: str) -> None:
    log.print(f"error: {sentence}", style="red", highlight=False, markup=False, soft_wrap=True)
