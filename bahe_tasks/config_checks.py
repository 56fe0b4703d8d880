"""How a setting is declared and checked: one line of meaning and unit beside each default."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from bahe_tasks.wrong_use import WrongUseError


class ConfigError(WrongUseError):
    """A setting that is unknown, of the wrong type or out of range.

    A section begins the message with the setting's name; `config` puts the file and the section before it.
    """


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its default and one line of meaning and unit. A mapping is copied for each object."""
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


def at_least(section: Any, least: float, *names: str) -> None:
    """Raise `ConfigError` when one of the named settings is below `least`."""
    for name in names:
        if getattr(section, name) < least:
            raise ConfigError(f"{name} must be at least {least}, not {getattr(section, name)}")


def above_zero(section: Any, *names: str) -> None:
    """Raise `ConfigError` when one of the named settings is not above 0."""
    for name in names:
        if getattr(section, name) <= 0:
            raise ConfigError(f"{name} must be above 0, not {getattr(section, name)}")


def share(section: Any, *names: str) -> None:
    """Raise `ConfigError` when one of the named settings is not a share in [0, 1)."""
    for name in names:
        if not 0 <= getattr(section, name) < 1:
            raise ConfigError(f"{name} must be in [0, 1), not {getattr(section, name)}")
