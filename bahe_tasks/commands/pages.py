"""Verbs for the eye: report, ui, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bahe_tasks.commands.console import (
    DEFAULT_HOME,
    EXIT_FAILED,
    AsJson,
    Home,
    read_config,
    show,
    tell,
    writable_config,
)
from bahe_tasks.config import home_folder
from bahe_tasks.wrong_use import check_place


def report(
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to write; default HOME/report/index.html.")
    ] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that opens offline: the days, the progressive AUC, the gate's results."""
    from bahe_tasks.report.html import write_report
    from bahe_tasks.stages.read_status import read_report

    config = read_config(home)
    target = out or config.home / "report" / "index.html"
    check_place(target)
    write_report(target, **read_report(config))
    show({"report": str(target)}, as_json=as_json)


def ui(home: Home = DEFAULT_HOME) -> None:
    """Serve the Airflow and MLflow pages on this machine until Ctrl-C."""
    from bahe_tasks.engines.airflow_pages import serve_pages

    serve_pages(writable_config(home))


def doctor(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Say what is missing on this machine and the command that mends it."""
    from bahe_tasks.doctor import run_checks

    home = home_folder(home)
    checks = run_checks(home, read_config(home) if (home / "bahe.yaml").is_file() else None)
    if as_json:
        show({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}, as_json=True)
    else:
        for check in checks:
            tell(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.sentence}")
            if not check.ok and check.command:
                tell(f"         mend it with: {check.command}")
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_FAILED)
