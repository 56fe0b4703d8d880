"""Errors that say how a day ended. Of others a `WrongUseError` is mended by a setting; the rest may heal on a retry."""

from __future__ import annotations


class GateRefused(Exception):
    """A gate looked at the day and said no. Its results are recorded; a retry would say the same."""


class InputsChangedError(ValueError):
    """What a run of a day began with is not what stands there now; a retry would say the same, running the day again mends it."""


class ParentChangedError(InputsChangedError):
    """A challenger whose parent is not the one its day has today."""


class NothingLandedError(Exception):
    """The landing folder holds neither events nor impressions for the day."""
