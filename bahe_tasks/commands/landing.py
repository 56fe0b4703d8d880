"""Verbs that make a home folder and fill a landing folder: init, import, synthesize."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bahe_tasks.commands.console import DEFAULT_HOME, AsJson, FirstDay, Home, LastDay, optional_days, read_config, show
from bahe_tasks.config import home_folder, render_config
from bahe_tasks.data_interval import parse_day
from bahe_tasks.wrong_use import WrongUseError

if TYPE_CHECKING:
    from bahe_tasks.sources.movietweetings import SkippedLine

import_app = typer.Typer(no_args_is_help=True, help="Turn a public data set into the landing contract.")


def init(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[HOME]", file_okay=False, help="Home folder to make.")
    ] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a home folder with a bahe.yaml that documents every setting. An existing bahe.yaml is left alone."""
    target, named = home_folder(folder or home), home.expanduser().resolve()
    source = context.get_parameter_source("home")
    if target != named and source is not None and source.name == "COMMANDLINE":
        raise WrongUseError(f"two home folders are named, {target} and {named}; which one?")
    target.mkdir(parents=True, exist_ok=True)
    settings = target / "bahe.yaml"
    created = not settings.exists()
    if created:
        settings.write_text(render_config(), encoding="utf-8")
    show({"home": str(target), "created": created, "landing": str(read_config(target).landing_dir)}, as_json=as_json)


@import_app.command("movietweetings")
def import_movietweetings(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Folder with ratings.dat and movies.dat.")],
    landing: Annotated[Path, typer.Argument(metavar="LANDING", file_okay=False, help="Landing folder to fill.")],
    first: FirstDay = None,
    last: LastDay = None,
    as_json: AsJson = False,
) -> None:
    """MovieTweetings ratings: label = rating of 8 or more; liked and disliked titles are the text features.

    Files that an earlier import left for these days, and this one has no rows for, are removed.
    """
    from bahe_tasks.sources.movietweetings import import_movietweetings as run

    start, end = optional_days(first, last)
    counts = run(src, landing, first=start, last=end)
    show(asdict(counts) | ({} if as_json else {"skipped": _skipped(counts.skipped)}), as_json=as_json)


def _skipped(lines: tuple[SkippedLine, ...]) -> str:
    if not lines:
        return "none"
    first = lines[0]
    return f"{len(lines)} line{'s' * (len(lines) > 1)}; first: {first.file} line {first.line}: {first.reason}"


@import_app.callback()
def _sources() -> None:
    """Keep `movietweetings` a verb of its own even while it is the only source."""


def synthesize(
    landing: Annotated[Path, typer.Argument(metavar="LANDING", file_okay=False, help="Landing folder to fill.")],
    days: Annotated[int, typer.Option(help="Days to make.")] = 4,
    users: Annotated[int, typer.Option(help="Users on the first day; more join every day.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed makes the same log.")] = 1,
    first_day: Annotated[str, typer.Option(metavar="DAY", help="First day, YYYY-MM-DD.")] = "2024-01-01",
    as_json: AsJson = False,
) -> None:
    """Make a synthetic log whose click probabilities are known, so that the best reachable AUC is known too."""
    from bahe_tasks.sources.synthetic import oracle_auc
    from bahe_tasks.sources.synthetic import synthesize as run

    first = parse_day(first_day)
    counts = run(landing, days=days, users=users, seed=seed, first_day=first)
    show(
        {**asdict(counts), "best_reachable_auc": oracle_auc(landing, first, first + timedelta(days=days - 1))},
        as_json=as_json,
    )
