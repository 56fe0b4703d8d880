import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bahe_tasks.stores.mapped_arrays import map_array
from bahe_tasks.stores.sorted_rows import write_in_order

WIDTH = 3


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    stretch_rows=st.integers(1, 50),
    part_rows=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_in_any_order_and_stretches_of_any_length(tmp_path_factory, count, stretch_rows, part_rows, seed):
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(seed)
    wanted = rng.normal(size=(count, WIDTH)).astype("<f2")
    rows = rng.permutation(count)[: rng.integers(count + 1)]
    wanted[np.setdiff1d(np.arange(count), rows)] = 0
    parts = [(some, wanted[some]) for some in np.split(rows, range(part_rows, len(rows), part_rows))]

    came = write_in_order(folder / "array", parts, (count, WIDTH), stretch_bytes=2 * WIDTH * stretch_rows)

    assert np.array_equal(map_array(folder / "array", "<f2", (count, WIDTH)), wanted)
    assert np.flatnonzero(came).tolist() == sorted(rows)
    assert [file.name for file in folder.iterdir()] == ["array"]


def test_the_last_of_two_rows_stays(tmp_path):
    parts = [(np.array([1, 1, 0]), np.array([[1], [2], [3]], "<f2")), (np.array([0]), np.array([[4]], "<f2"))]
    write_in_order(tmp_path / "array", parts, (2, 1))
    assert map_array(tmp_path / "array", "<f2", (2, 1)).tolist() == [[4], [2]]


def test_an_array_without_rows(tmp_path):
    came = write_in_order(tmp_path / "array", [], (0, WIDTH))
    assert (came.shape, map_array(tmp_path / "array", "<f2", (0, WIDTH)).shape) == ((0,), (0, WIDTH))


def test_a_row_beyond_the_array_is_refused(tmp_path):
    with pytest.raises(IndexError):
        write_in_order(tmp_path / "array", [(np.array([2]), np.zeros((1, 1), "<f2"))], (2, 1))
