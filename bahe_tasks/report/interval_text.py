"""An interval as a person reads it, in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping


def interval_text(ends: Mapping[str, float] | None) -> str:
    """Return "0.512 – 0.634" of {"low", "high"}, the upper end ∞ where it is open.

    Nothing of an interval that does not exist, nor of one whose lower end is infinite: no resample had a click.
    """
    if not ends or not math.isfinite(ends["low"]) or math.isnan(ends["high"]):
        return ""
    return f"{ends['low']:.3f} – {ends['high']:.3f}" if math.isfinite(ends["high"]) else f"{ends['low']:.3f} – ∞"
