"""How the newest labels went, also where that meets unusual days and tables of an earlier version of the code."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bahe_tasks.config import NumbersConfig
from bahe_tasks.running_sums import state_width
from bahe_tasks.stored_sums import OtherSumsError
from spark_jobs.derived.counted_rows import COUNTED
from spark_jobs.derived.day_scalars import day_scalars
from spark_jobs.derived.log_facts import log_facts
from spark_jobs.derived.newest_labels import NewestLabels, newest_labels
from spark_jobs.derived.scope_sums import STATE

DAY, SECOND_US = date(2024, 3, 14), 1_000_000


def impressions(*rows: tuple[int, int, float]) -> pa.Table:
    """Rows of COUNTED: shown, label known (µs since the start of the day), label."""
    named = [{"seen_us": seen, "fact_us": known, "label": label} for seen, known, label in rows]
    return pa.Table.from_pylist(named, schema=COUNTED)


def made(day: date, *counted: pa.Table, state: pa.Table) -> tuple[NewestLabels, pa.Table]:
    """What is read on a day, and the state of all of a log at its end."""
    facts = log_facts(counted, NumbersConfig())
    newest, of_newest = newest_labels(facts, state, day=day)
    return newest, pa.concat_tables([day_scalars(facts, state, day=day).state, of_newest])


def after(day: date, *counted: pa.Table, state: pa.Table | None = None) -> pa.Table:
    return made(day, *counted, state=STATE.empty_table() if state is None else state)[1]


def test_an_impression_reads_the_labels_known_before_its_second():
    rows = impressions(
        (-5, -5, 1.0),  # of the day before: known, and asks for nothing
        (0, 2 * SECOND_US, 1.0),
        (SECOND_US + 7, SECOND_US + 7, 1.0),
        (SECOND_US + 9, SECOND_US + 9, 0.0),
        (2 * SECOND_US, 2 * SECOND_US, 0.0),
        (4 * SECOND_US, 4 * SECOND_US, 0.0),
    )
    found, _ = made(DAY, rows, state=STATE.empty_table())
    sums = found.at(np.array([0, SECOND_US + 7, SECOND_US + 9, 2 * SECOND_US + 5, 4 * SECOND_US]))
    assert (np.diff(sums[:, 0]) >= 0).all()
    assert sums[[0, 1, 2], 0].tolist() == [1.0] * 3  # also the second of two in one second
    weights = 0.5 ** (np.array([2, 1, 0]) / 50.0)
    assert sums[3, 0] == pytest.approx(weights.sum())  # hand-worked: one, then the two of second 1
    assert sums[3, state_width("log") // 2] == pytest.approx((weights * [1, 1, 0]).sum())
    assert np.isnan(found.sums[3]).all()


@pytest.mark.parametrize("nothing", [[], [COUNTED.empty_table()]])
def test_a_day_without_labels_and_impressions_hands_the_newest_labels_on(nothing):
    first = after(DAY, impressions((5, 5, 1.0), (9, 9, 0.0)))
    second = after(date(2024, 3, 15), *nothing, state=first)
    of_log = [rows.filter(pc.field("scope") == "log").to_pylist() for rows in (first, second)]
    assert [len(rows) for rows in of_log] == [1, 1]
    assert of_log[0][0]["sums"] == of_log[1][0]["sums"]
    assert of_log[1][0]["sums"][0] > 1


def test_a_home_that_counts_other_sums_is_refused():
    state = after(DAY, impressions((5, 5, 1.0)))
    with pytest.raises(OtherSumsError, match="new home folder"):
        after(date(2024, 3, 15), state=state.filter(pc.field("scope") != "all"))
