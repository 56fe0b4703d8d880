"""Which keys of a day stand in files of millions of them.

Unusual: before keys are compared, a few bits of each are looked up in a table of marks that fits a processor's cache. A
key that the day does not have, as nearly all are, is passed over for the price of reading it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs.arrow_columns import key_numbers
from spark_jobs.landing_files import open_file

_MARK_BITS = 24
_ROWS_AT_ONCE = 1 << 15
_FILES_AT_ONCE = 2


def are_known(keys: pa.Array, files: list[str]) -> np.ndarray:
    """Return which of the distinct `keys` (K,) stand in column behavior_key of parquet files, (K,) bool."""
    found = np.zeros(len(keys), bool)
    if not len(keys):
        return found
    marks = np.zeros(1 << _MARK_BITS, bool)
    places = _places(keys)
    if places is None:
        marks[:] = True
    else:
        marks[places] = True

    def marked(file: str) -> list[pa.Array]:
        with open_file(file) as source:
            batches = pq.ParquetFile(source).iter_batches(_ROWS_AT_ONCE, columns=["behavior_key"], use_threads=False)
            return [_marked(batch.column(0).cast(pa.string()), marks) for batch in batches]

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        suspects = pa.chunked_array([part for parts in pool.map(marked, files) for part in parts], pa.string())
    found[np.asarray(pc.index_in(suspects, keys).drop_null())] = True
    return found


def _marked(column: pa.Array, marks: np.ndarray) -> pa.Array:
    places = _places(column)
    return column if places is None else column.take(pa.array(np.flatnonzero(marks[places])))


def _places(keys: pa.Array) -> np.ndarray | None:
    """Return each key's place among the marks; `None` unless all are sha256 in hex."""
    numbers = key_numbers(keys)
    return None if numbers is None else numbers >> np.uint64(64 - _MARK_BITS)
