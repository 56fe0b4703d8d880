"""Verbs about models: score pairs with the champion, take the champion back to an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bahe_tasks.commands.console import DEFAULT_HOME, AsJson, Home, read_config, remark, show, tell, writable_config


def score(
    pairs: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="csv, jsonl or parquet: user_id, item_id; perhaps title, cat_*, num_*."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; its ending names the format.")],
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write the champion's click probability for each (user_id, item_id) pair, from the published embeddings."""
    from bahe_tasks.stages.score_pairs import score_file

    told = score_file(pairs, out, read_config(home))
    show(told, as_json=as_json)
    if told["model_version"] != told["champion_version"]:
        remark(
            f"scored with version {told['model_version']}: the embeddings of champion {told['champion_version']} are not "
            "published yet; its day is running now, or was cut short and is to be run again"
        )


def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept with every version withdrawn.")] = "rolled back by hand",
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="VERSION", help="Version that passed, perhaps superseded since; default: the one before."
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make an earlier passed version the champion again and withdraw every later one.

    A day whose version was withdrawn has a model again once it is run with other rows or settings, or with `run-day DAY --force`.
    """
    from bahe_tasks.stages.roll_back import roll_back

    told = roll_back(writable_config(home), to=to, reason=reason)
    before, now = told["champion_before"], told["champion_version"]
    if not as_json:
        tell(
            f"champion back from version {before} to {now}" if before != now else f"champion was version {now} already"
        )
    show(told, as_json=as_json)
