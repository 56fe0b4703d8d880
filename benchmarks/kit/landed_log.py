"""The good rows of a whole landing folder as frames, read, judged and settled by the pipeline's own code, without Spark and tables.

So what a benchmark reads is what the stages would: every format of the landing contract, texts in their canonical form, rows
that the contract refuses left out, of equal rows one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US
from bahe_tasks.landing import landed_days
from spark_jobs.arrow_columns import day_numbers, entries, micros, whole
from spark_jobs.landed.earlier_impressions import STORED
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece, settle_rows

TIMES = {"impressions": "shown_at", "behavior_events": "occurred_at", "items": "updated_at"}
"""The column of a row's own time."""
_PREFIXES = {"cat": "cat_", "num": "num_", "labels": "label_"}


def landed_frame(landing: Path, source: str, *, late_days: int, last: date | None = None) -> pd.DataFrame:
    """Return the rows of a source, of every day or those up to `last`, with the columns of the landing contract.

    Times are microseconds since 1970 (label_known_at: NaN where absent), `landed_from` the start of the day a row landed on; maps
    stand as columns `cat_*`, `num_*` and `label_*`; a text has its `behavior_key` beside it. Raises `LandingNotFoundError`, `UnreadableFileError`.
    """
    kept: list[pa.Table] = []

    def earlier(late: pa.Table) -> pa.Table:
        return pa.concat_tables([late.slice(0, 0), *(rows.select(STORED) for rows in kept)])

    for day in landed_days(landing, source):
        if last is None or day <= last:
            pieces = pieces_of(str(landing), source, [day])
            good = [part.good for p in pieces for part in judge_piece(p, late_days=late_days)]
            kept.append(_plain(settle_rows(source, good, [], stored_of=earlier).kept))
    rows = pa.concat_tables(kept or [_plain(settle_rows(source, [], [], stored_of=earlier).kept)])
    columns = dict(_columns(rows))
    columns[TIMES[source]] = micros(rows[TIMES[source]])
    columns["landed_from"] = day_numbers(rows["dt"]) * DAY_US
    return pd.DataFrame(columns)


def _plain(rows: pa.Table) -> pa.Table:
    """Return the rows with texts in place of dictionaries, which differ from day to day."""
    kept = [name for name in rows.column_names if name not in ("copies", "title_key")]
    arrays = [rows[name].cast(pa.string()) if pa.types.is_dictionary(rows[name].type) else rows[name] for name in kept]
    return pa.table(arrays, kept)


def _columns(rows: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    for name in rows.column_names:
        column = whole(rows[name])
        if name in _PREFIXES:
            found = entries(column)
            for key in sorted(pc.unique(found.keys).to_pylist()):
                chosen = np.asarray(pc.equal(found.keys, key))
                values = found.values.filter(pa.array(chosen))
                is_text = pa.types.is_string(values.type)
                of_rows = np.full(len(column), None, object) if is_text else np.full(len(column), np.nan)
                of_rows[found.row[chosen]] = values.to_pylist() if is_text else np.asarray(values, np.float64)
                yield _PREFIXES[name] + key, of_rows
        elif pa.types.is_timestamp(column.type):
            yield name, np.asarray(pc.fill_null(column.cast(pa.int64()).cast(pa.float64(), safe=False), np.nan))
        elif name != "dt":
            yield name, column.to_numpy(zero_copy_only=False)
