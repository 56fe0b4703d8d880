"""The error of a wrong argument, setting or file that somebody gave: the command line exits with 2 for it."""

from __future__ import annotations


class WrongUseError(ValueError):
    """What was asked for cannot be done as asked; the message says what can."""
