"""Documents as JSON has them: it knows no NaN and no infinity."""

from __future__ import annotations

import math
from typing import Any


def with_nulls(value: Any) -> Any:
    """Return the value, and what dicts, lists and tuples in it hold, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
