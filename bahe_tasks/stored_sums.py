"""Running sums as the tables hold them: lists of one length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE = 50_000


class OtherSumsError(ValueError):
    """Tables hold other running sums than this version of the code counts."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the tables hold running sums of an earlier version of the code ({found}): backfill the landing into a new "
            "home folder, or with another registry.model_name after its tables folder is deleted"
        )


def stored_sums(column: pa.ChunkedArray | pa.Array, width: int) -> np.ndarray:
    """Return a column of lists of `width` numbers, null or with nulls, as (R, width) float64, NaN for null.

    Raises `OtherSumsError`.
    """
    sums = np.full((len(column), width), np.nan)
    for start in range(0, len(column), _ROWS_AT_ONCE):  # so that all is held once more, not twice
        chunk = column.slice(start, _ROWS_AT_ONCE)
        lengths = pc.list_value_length(chunk).drop_null()
        others = lengths.filter(pc.not_equal(lengths, width))
        if len(others):
            raise OtherSumsError(f"{others[0].as_py()} numbers a row, not {width}")
        numbers = pc.list_flatten(chunk).to_pandas().to_numpy(np.float64)  # null is NaN
        sums[start : start + len(chunk)][np.asarray(chunk.is_valid(), bool)] = numbers.reshape(-1, width)
    return sums
