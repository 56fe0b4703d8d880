"""How long a history is: what the mean of its behaviors, and what attention makes of them, cannot tell.

Where text features say what a user liked and disliked, their lengths say how often he likes, up to the very impression, also
where the point-in-time numbers stop at the day before (docs/quality.md). Published with the user embedding.
"""

from __future__ import annotations

import torch

WIDTH = 1
"""X: numbers of a history."""
_SCALE = 2.0


def extents(mask: torch.Tensor) -> torch.Tensor:
    """Mask (Q, S) of Q sequences → (Q, X): log(1 + behaviors), on a scale that spans -1 to 1 for none to some fifty."""
    return (torch.log1p(mask.sum(1, keepdim=True).float()) - _SCALE) / _SCALE
