"""Running sums of users whom a log does not have, added to a day's state: what a small day must not pay for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from bahe_tasks.key_sums import DAY_US, KeyState
from bahe_tasks.running_sums import state_width
from bahe_tasks.stores.delta_writes import replace_partitions
from spark_jobs.arrow_columns import repeated
from spark_jobs.derived.scope_sums import ScopeSums, state_rows

_PAIRS_A_USER = 300
_USERS_A_PART = 500
_KEYS = 1 << 60


def write_state(tables_dir: Path, day: date, own: pa.Table, *, pairs: int) -> None:
    """Write the partition `day` of the running sums: rows of it, and about `pairs` of other users with a word each.

    A process of its own does so: this one's memory stays as it was.
    """
    writer = get_context("spawn").Process(target=_write, args=(tables_dir, day, own, pairs))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise RuntimeError(f"the state was not written: exit status {writer.exitcode}")


def _write(tables_dir: Path, day: date, own: pa.Table, pairs: int) -> None:
    parts = partial(_parts, own, day, pairs)
    replace_partitions(tables_dir, "running_sums", parts, predicate=f"dt = '{day}'", partitions={})


def _parts(own: pa.Table, day: date, pairs: int) -> Iterator[pa.Table]:
    """Yield the rows, others' as a day in buckets writes them: a range of users each."""
    yield own
    random = np.random.default_rng(0)
    users = np.sort(random.integers(0, _KEYS, pairs // _PAIRS_A_USER))
    for start in range(0, len(users), _USERS_A_PART):
        owners = random.permutation(np.repeat(users[start : start + _USERS_A_PART], _PAIRS_A_USER))
        count = len(owners)
        sums = random.poisson(1.0, (count, state_width("pair"))) * random.random((count, state_width("pair")))
        closing = KeyState(sums, *np.sort(random.integers(0, DAY_US, (2, count)).astype(float), axis=0))
        of_part = ScopeSums(np.zeros((0, 0)), np.sort(random.integers(0, _KEYS, count)), closing)
        rows = state_rows("pair", of_part, day=day, owners=pa.array(owners))
        yield rows.append_column("dt", repeated(day, pa.date32(), count))
