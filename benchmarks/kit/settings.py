"""Options that benchmarks share: settings of the configuration, and how to print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bahe_tasks.config import Config, ConfigError, config_from

MODEL_SECTIONS = ("encoder", "model", "training")
SECTIONS = (*MODEL_SECTIONS, "numbers", "landing", "sequences")
"""What a replay in memory can read: it has neither Spark nor a gate."""
SET_HELP = "A setting in place of its default, as encoder.num_shallow_layers=6; may be repeated."
Settings = Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def config_with(
    settings: Sequence[str] | None, *, home: Path, small: bool = False, sections: Sequence[str] = SECTIONS
) -> Config:
    """Return the default configuration with settings given as SECTION.NAME=VALUE, the value as in bahe.yaml.

    Raises `typer.BadParameter` for what is no setting of the sections or no value of it, and for any beside `small`.
    """
    if small and settings:
        raise typer.BadParameter("--small has settings of its own: leave --set out")
    document: dict[str, Any] = {}
    for given in settings or ():
        name, equals, value = given.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise typer.BadParameter(f"{given}: expected SECTION.NAME=VALUE")
        if section not in sections:
            raise typer.BadParameter(f"{given}: this program reads settings of {', '.join(sections)} alone")
        try:
            document.setdefault(section, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{given} is not valid YAML: {error}") from error
    try:
        return config_from(document, home=home, where="--set")
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
