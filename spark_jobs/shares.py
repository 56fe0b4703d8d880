"""Work shared out among tasks by its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_BYTES_A_SHARE = 16 << 20
_BYTES_TO_OPEN = 1 << 16
"""A file weighs so much more than its bytes."""

Piece = TypeVar("Piece")


def in_shares(pieces: Sequence[Piece], num_bytes: Sequence[int]) -> list[list[Piece]]:
    """Return the pieces, in their order, in lists of some megabytes."""
    shares: list[list[Piece]] = []
    held = _BYTES_A_SHARE
    for piece, of_piece in zip(pieces, num_bytes, strict=True):
        if held >= _BYTES_A_SHARE:
            shares.append([])
            held = 0
        shares[-1].append(piece)
        held += of_piece + _BYTES_TO_OPEN
    return shares
