"""Sums of an earlier version of the code are refused in words, not by a failed reshape."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bahe_tasks.stored_sums import OtherSumsError, stored_sums

LISTS = pa.list_(pa.float64())


def test_lists_of_one_length_are_rows():
    column = pa.chunked_array(
        [pa.array([[9.0, 9.0], [1.0, None], None], LISTS).slice(1), pa.array([[3.0, 4.0]], LISTS)]
    )
    np.testing.assert_array_equal(stored_sums(column, 2), [[1.0, np.nan], [np.nan, np.nan], [3.0, 4.0]])
    assert stored_sums(pa.array([], LISTS), 2).shape == (0, 2)


def test_lists_of_another_length_are_refused():
    with pytest.raises(OtherSumsError, match="3 numbers a row, not 2"):
        stored_sums(pa.array([[1.0, 2.0, 3.0], None], LISTS), 2)
    with pytest.raises(OtherSumsError, match="1 numbers a row, not 2"):
        stored_sums(pa.array([[1.0, 2.0], [1.0]], LISTS), 2)
