"""Of the state before it a day reads the rows of its own keys, and makes what it makes of all of them."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from settled_days import FIRST, day_of_rows, sorted_rows, write

from bahe_tasks.key_sums import KeyState
from bahe_tasks.running_sums import state_width
from bahe_tasks.state_cover import state_cover
from bahe_tasks.stores import delta_writes
from bahe_tasks.stores.delta_tables import count_stored
from spark_jobs.derived import scope_sums, state_of_keys, stored_state
from spark_jobs.derived.derive import derive
from spark_jobs.derived.run_here import Here
from spark_jobs.derived.steps import rows_in


def test_a_day_reads_the_state_of_its_own_keys_and_makes_the_same_as_of_all(plan_of, landing, tmp_path, monkeypatch):
    monkeypatch.setattr(delta_writes, "_ROWS_A_GROUP_OF_KEYS", 4)
    random, recorded, read = Random(1), [], {}
    of_state = state_of_keys.StateRows.__init__

    def counting(self, stored, plan, *, keys=None):
        tables = list(stored)
        read[plan.day] = read.get(plan.day, 0) + sum(map(len, tables))
        of_state(self, tables, plan, keys=keys)

    monkeypatch.setattr(state_of_keys.StateRows, "__init__", counting)
    for n, sizes in enumerate([(40, 60, 8), (12, 12, 4), (1, 1, 0), (1, 1, 0)]):
        day = FIRST + timedelta(days=n)
        kept = day_of_rows(random, day, **dict(zip(("impressions", "events", "items"), sizes, strict=True)))
        cover = state_cover(day, recorded=recorded)
        plan = plan_of(landing, tmp_path / "tables", day, state_days=cover)
        made, counts = [], []
        for most in (stored_state.MOST_KEYS, 0):
            with monkeypatch.context() as patch:
                patch.setattr(stored_state, "MOST_KEYS", most)
                read.clear()
                made.append(derive(Here(plan.tables_dir, kept), plan))
                counts.append(read[day])
        for of_own, of_all in zip(*made, strict=True):
            columns = next(rows_in(of_all)).column_names
            assert sorted_rows(of_own, columns) == sorted_rows(of_all, columns)
        written = sum(count_stored(plan.tables_dir, "running_sums", partitions=f"dt = '{d}'") for d in cover)
        assert counts[1] == written
        if sizes[0] == 1 and not plan.days_to_merge:
            assert counts[0] < written * 2 / 3
        write(plan, kept)
        recorded.append(day)
    assert any(len(state_cover(day, recorded=recorded)) > 1 for day in recorded)


def test_row_groups_without_a_key_of_the_day_are_passed_over(tmp_path):
    def rows(scope, keys, owner=None):
        sums = scope_sums.ScopeSums(None, np.array(keys), KeyState(np.zeros((len(keys), state_width(scope))), *np.full((2, len(keys)), np.nan)))  # fmt: skip
        return scope_sums.state_rows(scope, sums, day=FIRST, owners=owner and pa.array(owner, pa.int64()))

    file = tmp_path / "part.parquet"
    pairs = rows("pair", list(range(8)), [5, 1, 5, 1, 9, 9, 7, 7])
    assert pairs["owner"].to_pylist() == [1, 1, 5, 5, 7, 7, 9, 9]
    pq.write_table(pa.concat_tables([rows("item", [3, 8]), pairs, rows("user", [1, 5])]), file, row_group_size=2)
    [fragment] = ds.dataset(file).get_fragments()

    def groups(**wanted):
        return stored_state._groups(fragment, {scope: of and np.array(of) for scope, of in wanted.items()})

    assert groups(item=[3], pair=[5, 8]) == [0, 2]
    assert groups(item=[9]) == []
    assert groups(user=[2, 5], pair=[9]) == [4, 5]
    assert groups(pair=None) == [1, 2, 3, 4]
