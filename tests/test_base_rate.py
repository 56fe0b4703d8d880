"""What a label is expected to be before anything is known of its user and item."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bahe_tasks import base_rate
from bahe_tasks.base_rate import BaseRate

NOTHING = np.zeros(0, np.int64), np.zeros(0)


def test_labels_of_earlier_days_tell_it_and_those_of_the_day_do_not():
    base = BaseRate.before(19.0, 98.0, np.array([5, 5, 9]), np.array([1.0, 1.0, 1.0]))
    assert base.at_start == base.known == pytest.approx(20 / 100)
    assert base.of_facts(np.array([-3, 5, 100])).tolist() == [base.at_start] * 3


def test_the_first_labels_are_expected_to_be_as_those_up_to_them():
    order = [2, 0, 3, 1]  # the order of rows is nothing
    times, labels = np.array([10, 20, 20, 30])[order], np.array([0.0, 0.0, 1.0, 0.0])[order]
    base = BaseRate.before(0.0, 0.0, times, labels)
    assert math.isnan(base.known)
    assert base.at_start == 0.5
    expected = [0.5, 1 / 3, 1 / 3, 2 / 5, 2 / 5, 2 / 6, 2 / 6]  # hand-worked: one click of two is added
    assert base.of_facts(np.array([9, 10, 19, 20, 29, 30, 99])).tolist() == pytest.approx(expected)


def test_a_question_reads_the_labels_strictly_before_it():
    base = BaseRate.before(0.0, 0.0, np.array([10, 20, 20]), np.array([0.0, 1.0, 0.0]))
    expected = [0.5, 0.5, 1 / 3, 1 / 3, 2 / 5]
    assert base.of_questions(np.array([9, 10, 11, 20, 21])).tolist() == pytest.approx(expected)


def test_of_very_many_times_some_stand_for_all(monkeypatch):
    monkeypatch.setattr(base_rate, "_MOST_TIMES", 4)
    times = np.arange(10)
    base = BaseRate.before(0.0, 0.0, times, np.ones(10))
    assert base.first_us.tolist() == [0, 3, 6, 9]
    assert base.of_facts(times).tolist() == pytest.approx([2 / 3] * 3 + [5 / 6] * 3 + [8 / 9] * 3 + [11 / 12])
    assert base.of_questions(np.array([0, 1, 3, 9])).tolist() == pytest.approx([1 / 2, 2 / 3, 2 / 3, 8 / 9])


def test_a_log_without_any_label_expects_one_half():
    base = BaseRate.before(0.0, 0.0, *NOTHING)
    assert base.of_facts(np.array([0, 7])).tolist() == [0.5, 0.5]
    assert base.of_facts(NOTHING[0]).shape == (0,)
