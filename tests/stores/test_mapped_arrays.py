import numpy as np
import pytest

from bahe_tasks.stores.mapped_arrays import CutShortError, map_array


@pytest.mark.parametrize("shape", [(3, 2), (0, 2)])
def test_what_is_written_is_read(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype="<f2").reshape(shape)
    array.tofile(tmp_path / "array")
    read = map_array(tmp_path / "array", "<f2", shape)
    assert (read.dtype, read.shape) == (np.float16, shape)
    assert np.array_equal(read, array)


@pytest.mark.parametrize("shape", [(4, 2), (2, 2), (0, 2)])
def test_a_file_of_another_length_is_refused(tmp_path, shape):
    np.zeros((3, 2), "<f2").tofile(tmp_path / "array")
    with pytest.raises(CutShortError, match="12 bytes"):
        map_array(tmp_path / "array", "<f2", shape)
