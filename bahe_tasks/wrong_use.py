"""The error of a wrong argument, setting or file that somebody gave: the command line exits with 2 for it."""

from __future__ import annotations

import os
from pathlib import Path


class WrongUseError(ValueError):
    """What was asked for cannot be done as asked; the message says what can."""


def check_place(out: Path) -> None:
    """Raise `WrongUseError` where no such file can be written."""
    if out.is_dir():
        raise WrongUseError(f"{out} is a folder; name a file in it")
    there = next(path for path in out.absolute().parents if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise WrongUseError(f"{out} cannot be written: {there} is no folder that files can be made in")
