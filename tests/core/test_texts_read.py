"""Which texts rows point to, against a plain loop."""

import dataclasses
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bahe_tasks.core.training_rows import Histories, ImpressionRows, texts_read

SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted), min_size=1, max_size=6)


def rows_of(spans, behavior_rows, titles):
    """Impressions whose only history has these spans of positions."""
    nothing = np.zeros(len(spans))
    starts, ends = np.array(spans).T.astype(np.int64)
    history = Histories(behavior_rows, np.zeros(12, np.int64), starts, ends)
    ids = nothing.astype(object)
    return ImpressionRows(ids, ids, ids, nothing, nothing, nothing, np.array(titles), {"bills": history}, {}, {})


@given(SPANS, st.data())
def test_texts_of_every_span_and_known_title_and_no_other(spans, data):
    behavior_rows = np.array(data.draw(st.lists(st.integers(0, 30), min_size=12, max_size=12)), np.int64)
    titles = data.draw(st.lists(st.integers(-1, 30), min_size=len(spans), max_size=len(spans)))
    expected = {title for title in titles if title >= 0}
    for start, end in spans:
        expected |= set(behavior_rows[start:end].tolist())
    rows = rows_of(spans, behavior_rows, titles)
    assert texts_read([rows]).tolist() == sorted(expected)
    assert texts_read([rows, dataclasses.replace(rows, title_rows=np.full(len(spans), 40))]).tolist() == sorted(
        expected | {40}
    )


def test_no_rows_read_nothing():
    assert texts_read([]).tolist() == []


def test_memory_does_not_grow_with_behaviors_that_no_row_reads(tmp_path):
    """Two spans of five behaviors in a mapped file of two million."""
    behavior_rows = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.int64, shape=(2_000_000,))
    behavior_rows[10:15] = behavior_rows[1_999_990:1_999_995] = 7
    rows = rows_of([(10, 15), (1_999_990, 1_999_995)], behavior_rows, [-1, -1])
    tracemalloc.start()
    assert texts_read([rows]).tolist() == [7]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
