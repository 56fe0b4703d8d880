"""The verb about settings: config show."""

from __future__ import annotations

import dataclasses

import typer

from bahe_tasks.commands.console import DEFAULT_HOME, AsJson, Home, read_config, show
from bahe_tasks.config import SECTIONS, plain, render_config

config_app = typer.Typer(no_args_is_help=True, help="The settings of a home folder.")


@config_app.command("show")
def show_config(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Print every setting in force with its meaning, as a bahe.yaml; what differs from the default says so."""
    config = read_config(home)
    if not as_json:
        print(render_config(config))
        return
    sections = {name: getattr(config, name) for name in SECTIONS}
    settings = {
        name: {item.name: plain(getattr(section, item.name)) for item in dataclasses.fields(section)}
        for name, section in sections.items()
    }
    show({"home": str(config.home), "settings": settings}, as_json=True)


@config_app.callback()
def _settings() -> None:
    """Keep `show` a verb of its own while it is the only one."""
