"""How full the tables of hashed values are, and what that says of the values."""

import hashlib
import logging

import numpy as np
import pytest
import torch

from bahe_tasks.core.columns import hashed_rows
from bahe_tasks.stages.fine_tune import _warn_of_full_tables


@pytest.mark.parametrize("num_values", [400, 3_000, 10_000])
def test_as_many_values_share_a_row_as_rows_are_in_use(num_values):
    values = np.array([hashlib.sha256(str(n).encode()).hexdigest() for n in range(num_values)], object)
    rows = hashed_rows({"id:user": values}, ("id:user",), num_rows=num_values, buckets=4096)[:, 0]
    _, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
    share_a_row = (counts[place] > 1).mean()
    assert share_a_row == pytest.approx(len(counts) / 4096, abs=0.035)


def test_rows_that_were_trained_on_are_in_use_and_too_many_are_told_of(fresh, caplog):
    model = fresh()
    assert set(model.rows_in_use().values()) == {0.0}
    table = next(iter(model.columns.tables.values()))
    num_rows = table.num_embeddings
    with torch.no_grad():
        table.weight[1 : num_rows // 4] = 1.0
    with caplog.at_level(logging.WARNING):
        _warn_of_full_tables(model)
        assert not caplog.records
        with torch.no_grad():
            table.weight[1:] = 1.0
        _warn_of_full_tables(model)
    name = model.columns.hashed_columns[0]
    assert model.rows_in_use()[name] == pytest.approx(1, abs=0.1)
    assert f"not told apart: {name} " in caplog.text
    assert "model.hash_buckets" in caplog.text
