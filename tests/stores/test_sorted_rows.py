import resource

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


@pytest.mark.parametrize("row", [-1, 4])
@pytest.mark.parametrize("stretch_bytes", [2, 4, 1 << 20])
def test_a_row_beyond_the_array_is_refused(tmp_path, row, stretch_bytes):
    parts = [(np.array([3, row]), np.zeros((2, 1), "<f2"))]
    with pytest.raises(IndexError, match=f"rows {min(row, 3)} to {max(row, 3)} of an array of 4"):
        write_in_order(tmp_path / "array", parts, (4, 1), stretch_bytes=stretch_bytes)


def test_many_stretches_do_not_need_many_open_files(tmp_path):
    wanted = np.arange(2000, dtype="<f2").reshape(-1, 1)
    used, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        write_in_order(tmp_path / "array", [(np.arange(2000), wanted)], (2000, 1), stretch_bytes=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    assert np.array_equal(map_array(tmp_path / "array", "<f2", (2000, 1)), wanted)
