"""How much more or less the rows of a training window are clicked than the model expects: log-odds that are added to the
click's logit while the window is trained on. The click's bias takes over a share of them at the end of each epoch; the rest is
forgotten when the window ends.

In a log whose level moves from day to day (weather, a campaign) the bias would else learn each day's level, and weights of
numbers that are nearly the same all day would learn to undo the level before. Of the two the average that scores keeps
only the slow part, and said the opposite of yesterday's level (docs/quality.md, "Numbers as of the day before").

Estimated as the steps go by, by one step of Newton's method each, with a normal prior around 0: a window of a few rows has
next to no level of its own. Where clicks are rare and become ten times as many, a step of the method goes far beyond them, to
where predictions are 0 or 1 and nothing leads back; so none is longer than a log-odds.
"""

from __future__ import annotations

from typing import NamedTuple

_INFORMATION_OF_PRIOR = 16.0
"""A window's level lies about a quarter of a log-odds from what is expected."""
_LONGEST_STEP = 1.0


class WindowLevel(NamedTuple):
    """What is known of a window's level so far."""

    log_odds: float = 0.0
    information: float = _INFORMATION_OF_PRIOR  # inverse variance
    handed_over: float = 0.0  # what of the level the bias holds already

    def after(self, surplus: float, information: float) -> WindowLevel:
        """Return what is known after further rows: Σ (label - p) and Σ p (1 - p), p being predicted with this level."""
        known = self.information + information
        step = max(-_LONGEST_STEP, min(surplus / known, _LONGEST_STEP))
        return self._replace(log_odds=self.log_odds + step, information=known)

    def hand_over(self, share: float) -> tuple[float, WindowLevel]:
        """Return by how much to move the bias, for it to hold that share of the level, and what is left of the level then."""
        level = self.log_odds + self.handed_over
        return share * level - self.handed_over, self._replace(log_odds=(1 - share) * level, handed_over=share * level)
