"""Rows of an array that are taken when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowsAt:
    """R rows of an array (T, …), those at `places` (R,) int64: the rows of a mapped file that a reader asks for are held alone."""

    array: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        """R."""
        return len(self.places)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return some of the R rows, a copy. A slice or an array says which; columns are not asked for."""
        return self.array[self.places[rows]]
