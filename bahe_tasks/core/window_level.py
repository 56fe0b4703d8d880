"""How much more or less the rows of a training window are clicked than the model expects: log-odds that are added to the
click's logit while the window is trained on. When it ends the click's bias takes over a share of them; the rest is forgotten.

In a log whose level moves from day to day (weather, a campaign) the bias would else learn each day's level, and weights of
numbers that are nearly the same all day would learn to undo the level before. Of the two the average that scores keeps
only the slow part, and said the opposite of yesterday's level (docs/quality.md, "Numbers as of the day before").

Estimated as the steps go by, by one step of Newton's method each, with a normal prior around 0: a window of a few rows has
next to no level of its own.
"""

from __future__ import annotations

from typing import NamedTuple

_INFORMATION_OF_PRIOR = 16.0
"""A window's level lies about a quarter of a log-odds from what is expected."""


class WindowLevel(NamedTuple):
    """What is known of a window's level so far."""

    log_odds: float = 0.0
    information: float = _INFORMATION_OF_PRIOR  # inverse variance

    def after(self, surplus: float, information: float) -> WindowLevel:
        """Return what is known after further rows: Σ (label - p) and Σ p (1 - p), p being predicted with this level."""
        known = self.information + information
        return WindowLevel(self.log_odds + surplus / known, known)
