"""Times and numbers are read alike by Arrow, all of a column at once, and by the Python function of one text."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.landed.parse_values import instant_of, instants_of, number_of, numbers_of, whole_numbers

TIMES = {
    "2024-03-10": (2024, 3, 10),
    "2024-03-10T12:30": (2024, 3, 10, 12, 30),
    "2024-03-10 12:30:15": (2024, 3, 10, 12, 30, 15),
    "2024-03-10T12:30:15Z": (2024, 3, 10, 12, 30, 15),
    "2024-03-10T12:30:15.5Z": (2024, 3, 10, 12, 30, 15, 500_000),
    "2024-03-10T12:30:15,123456789": (2024, 3, 10, 12, 30, 15, 123_456),
    "2024-03-10T12:30:15.123456+02:00": (2024, 3, 10, 10, 30, 15, 123_456),
    "2024-03-10 12:30:15 -0530": (2024, 3, 10, 18, 0, 15),
    " 2024-03-10T12:30:15+01 ": (2024, 3, 10, 11, 30, 15),
    "1710072000": (2024, 3, 10, 12),
    "1710072000.25": (2024, 3, 10, 12, 0, 0, 250_000),
    "1.710072e9": (2024, 3, 10, 12),
    "-0.0000001": (1969, 12, 31, 23, 59, 59, 999_999),
}
NO_TIMES = [
    "",
    " ",
    "x",
    "12:00",
    "2024-02-30",
    "2024-13-01T00:00:00Z",
    "2024-03-10T24:00:00",
    "2024-03-10T12",
    "9" * 40,
    "NaN",
    "2024-03-10T12:00:00+25:00",
]
NUMBERS = {
    "1": 1.0,
    "-2.50": -2.5,
    "+3": 3.0,
    " 4 ": 4.0,
    ".5": 0.5,
    "6.": 6.0,
    "1e3": 1000.0,
    "-1E-2": -0.01,
    "007": 7.0,
}
NO_NUMBERS = ["", "x", "NaN", "inf", "-Infinity", "1e999", "1d", "0x10", "1,5", "1_000", "\u0663", "--1"]  # fmt: skip


def micros(parts):
    return int((datetime(*parts, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 10**6)


def test_times():
    wanted = [micros(parts) for parts in TIMES.values()] + [None] * len(NO_TIMES)
    texts = [*TIMES, *NO_TIMES]
    assert [instant_of(text) for text in texts] == wanted
    assert instants_of(pa.array([*texts, None])).to_pylist() == [*wanted, None]
    for text, one in zip(texts, wanted, strict=True):  # alone, so that no other text decides the way
        assert instants_of(pa.array([text])).to_pylist() == [one], text


def test_numbers():
    wanted = [*NUMBERS.values()] + [None] * len(NO_NUMBERS)
    texts = [*NUMBERS, *NO_NUMBERS]
    assert [number_of(text) for text in texts] == wanted
    assert numbers_of(pa.array([*texts, None])).to_pylist() == [*wanted, None]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_nearest_double(value):
    assert numbers_of(pa.array([repr(value), f"{value:.3f}"])).to_pylist() == [value, float(f"{value:.3f}")]


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
def test_a_time_is_read_to_the_microsecond(time):
    wanted = (time - datetime(1970, 1, 1)) // (datetime(1970, 1, 1, microsecond=1) - datetime(1970, 1, 1))
    texts = [time.isoformat(), time.isoformat(" "), time.isoformat() + "Z", time.isoformat() + "+00:00"]
    assert instants_of(pa.array(texts)).to_pylist() == [wanted] * 4


@pytest.mark.parametrize(("value", "whole"), [(1.0, 1), (0.5, None), (-3.0, -3), (2.0**31, None), (None, None)])
def test_whole_numbers(value, whole):
    assert whole_numbers(pa.array([value], pa.float64())).to_pylist() == [whole]
