"""Sets of behavior keys in files against Python's own sets, with keys that share their first bytes."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from bahe_tasks.stages.behavior_digests import (
    NotABehaviorKeyError,
    digest_set,
    digests_of,
    keys_of,
    map_digests,
    write_distinct,
)

SHARED_HEAD = [f"{'ab' * 8}{n:048x}" for n in (7, 0, 3)]


def keys(count):
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]


def test_nulls_and_parts_of_arrays_are_told_right():
    given = pa.chunked_array([pa.array([None, *keys(3)])[2:], pa.array([], pa.string()), pa.array([keys(1)[0], None])])
    assert keys_of(digests_of(given)) == [*keys(3)[1:], keys(1)[0]]


@pytest.mark.parametrize("wrong", ["tea", "x" * 64, "", "é" * 32])
def test_a_key_that_is_no_digest_is_refused(wrong):
    with pytest.raises(NotABehaviorKeyError, match="64 hex digits"):
        digests_of(pa.array([*keys(2), wrong]))


@pytest.mark.parametrize("given", [[], keys(1), [*keys(500), *SHARED_HEAD, "00" * 32, "ff" * 32, "00" * 31 + "01"]])
def test_the_set_in_files_is_sorted_and_finds_each_key_and_no_other(given, tmp_path):
    parts = [digests_of(pa.array(part, pa.string())) for part in (given, given[:40], [], given[::-1])]
    count = write_distinct(parts, tmp_path)
    found = map_digests(tmp_path, count)
    assert keys_of(found.digests) == sorted(set(given))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digests", "heads"]
    absent = [*[key[::-1] for key in keys(50)], f"{'ab' * 8}{1:048x}", f"{'ab' * 8}{9:048x}", "ff" * 31 + "fe"]
    rows = found.rows_of(digests_of(pa.array([*given, *absent], pa.string())))
    assert rows.tolist() == [sorted(given).index(key) for key in given] + [-1] * len(absent)


def test_a_set_in_memory_is_that_in_files(tmp_path):
    digests = digests_of(pa.array([*SHARED_HEAD, *keys(9), *SHARED_HEAD]))
    written = map_digests(tmp_path, write_distinct([digests], tmp_path))
    assert np.array_equal(digest_set(digests).digests, written.digests)
    assert np.array_equal(digest_set(digests).heads, written.heads)
