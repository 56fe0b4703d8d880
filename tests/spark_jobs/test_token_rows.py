"""Tokens of rows: members of the groups that rows have."""

import numpy as np

from spark_jobs.derived.token_rows import members_of_rows


def test_each_row_has_the_members_of_its_group():
    row_of, place = members_of_rows(np.array([2, 0, -1, 1, 2]), np.array([3, 1, 2, 0]))
    assert row_of.tolist() == [0, 0, 1, 1, 1, 3, 4, 4]
    assert place.tolist() == [4, 5, 0, 1, 2, 3, 4, 5]
    assert [len(of) for of in members_of_rows(np.array([0, -1]), np.array([0, 0]))] == [0, 0]
