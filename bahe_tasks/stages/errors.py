"""Errors that say how a day ended. Anything else a stage raises is a failure that may heal on a retry."""

from __future__ import annotations


class GateRefused(Exception):
    """A gate looked at the day and said no. Its results are recorded; a retry would say the same."""


class ParentChangedError(ValueError):
    """A challenger whose parent is not the one its day has today; a retry would say the same, running the day again mends it."""


class NothingLandedError(Exception):
    """The landing folder holds neither events nor impressions for the day."""
