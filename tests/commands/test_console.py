"""What a person reads in a table."""

import math

import pytest

from bahe_tasks.commands.console import cell


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.63214, "0.6321"), (92.78, "92.8"), (3, "3"), (True, "True"), (None, "–"), (math.nan, "–"), ("done", "done")],
)
def test_numbers_are_short_and_absent_ones_a_dash(value, text):
    assert cell(value) == text
