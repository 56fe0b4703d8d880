"""Rows shared out among buckets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa


def in_buckets(rows: pa.Table, bucket_of: np.ndarray, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each bucket that has any; `bucket_of` (R,) are their buckets, beyond the last is none."""
    order = np.argsort(bucket_of, kind="stable")
    ordered = rows.take(pa.array(order))
    bounds = np.searchsorted(bucket_of[order], np.arange(buckets + 1))
    for bucket in np.flatnonzero(np.diff(bounds)).tolist():
        yield bucket, ordered.slice(bounds[bucket], bounds[bucket + 1] - bounds[bucket])
