import json
from dataclasses import asdict
from datetime import date

import pandas as pd
import pyarrow as pa
import pytest

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.expectations import ExpectationResult, data_docs_page, stops, validate, write_data_docs
from bahe_tasks.stores.gate_results import gate_results_rows, not_enough_evidence

DAY, NEXT = date(2013, 9, 24), date(2013, 9, 25)
FRAME = pd.DataFrame({"label": [0, 1, 7], "user_id": ["a", "b", "c"]})


@pytest.fixture(scope="module")
def gxe():
    import great_expectations.expectations

    return great_expectations.expectations


def run(suites, gx_dir, frames=None, day=DAY):
    return validate(frames or {"impressions": FRAME}, suites, gx_dir=gx_dir, day=day, stage="validate_inputs")


def result(outcome):
    return ExpectationResult("impressions.label", outcome, "1", "2")


def test_passed_failed_and_errored_are_told_apart_and_come_in_the_order_asked(gxe, tmp_path):
    results = run(
        {
            "impressions": [
                gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1]),
                gxe.ExpectColumnValuesToNotBeNull(column="no_such_column"),
                gxe.ExpectColumnValuesToNotBeNull(column="user_id"),
                gxe.ExpectColumnMaxToBeBetween(column="no_such_column", max_value=1),
            ]
        },
        tmp_path,
    )
    assert [(r.expectation, r.outcome) for r in results] == [
        ("impressions.expect_column_values_to_be_in_set(label)", "failed"),
        ("impressions.expect_column_values_to_not_be_null(no_such_column)", "errored"),
        ("impressions.expect_column_values_to_not_be_null(user_id)", "passed"),
        ("impressions.expect_column_max_to_be_between(no_such_column)", "errored"),
    ]
    assert (results[0].observed, results[0].required) == (
        "1 of 3 rows: 7",
        "column values to be in set: value_set=[0, 1]",
    )
    assert "no_such_column" in results[1].observed


def test_an_expectation_of_a_frame_that_is_not_there_errors(gxe, tmp_path):
    found = run({"items": [gxe.ExpectColumnValuesToNotBeNull(column="item_id")]}, tmp_path)
    assert [(r.outcome, r.observed) for r in found] == [("errored", "there is no frame items")]


def test_results_are_plain_json(gxe, tmp_path):
    frame = pd.DataFrame({"value": [float("inf")], "time": pd.to_datetime(["2013-09-24T00:00Z"])})
    asked = [
        gxe.ExpectColumnMaxToBeBetween(column="value", max_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="time", value_set=[]),
    ]
    found = run({"figures": asked}, tmp_path, frames={"figures": frame})
    assert [r.outcome for r in found] == ["failed", "failed"]
    assert json.loads(json.dumps([asdict(r) for r in found], allow_nan=False))[0]["observed"] == "inf"


def test_data_docs_list_the_days_of_the_month_and_show_what_failed(gxe, tmp_path):
    asked = {"impressions": [gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1])]}
    run(asked, tmp_path)
    run(asked, tmp_path, day=NEXT)
    write_data_docs(tmp_path)
    index = data_docs_page(tmp_path, DAY)
    assert index == data_docs_page(tmp_path, NEXT)
    text = index.read_text(encoding="utf-8")
    assert "2013-09-24-validate_inputs" in text
    assert "2013-09-25-validate_inputs" in text
    (page,) = index.parent.rglob("2013-09-24-validate_inputs/**/*.html")
    assert "label" in page.read_text(encoding="utf-8")


def test_pages_are_written_of_results_that_have_none_in_whatever_month(gxe, tmp_path):
    def names():
        return {page.parent.parent.name for page in tmp_path.rglob("day-*.html")}

    asked = {"impressions": [gxe.ExpectColumnValuesToNotBeNull(column="user_id")]}
    run(asked, tmp_path)
    assert names() == set()
    write_data_docs(tmp_path)
    assert names() == {"2013-09-24-validate_inputs"}
    (page,) = tmp_path.rglob("day-*.html")
    written = page.stat().st_mtime_ns
    validate({"impressions": FRAME}, asked, gx_dir=tmp_path, day=NEXT, stage="validate_challenger")
    run(asked, tmp_path, day=date(2013, 10, 1))
    write_data_docs(tmp_path)
    assert names() == {
        "2013-09-24-validate_inputs",
        "2013-09-25-validate_challenger",
        "2013-10-01-validate_inputs",
    }
    assert page.stat().st_mtime_ns == written
    run(asked, tmp_path)  # what it said before is no longer shown
    assert names() == {"2013-09-25-validate_challenger", "2013-10-01-validate_inputs"}


def test_pages_that_were_interrupted_are_written_later(gxe, tmp_path):
    asked = {name: [gxe.ExpectColumnValuesToNotBeNull(column="user_id")] for name in ("a", "b")}
    run(asked, tmp_path, frames=dict.fromkeys("ab", FRAME))
    write_data_docs(tmp_path)
    written = set(tmp_path.rglob("*.html"))
    assert len(written) == 3
    for lost in written:
        lost.unlink()
        write_data_docs(tmp_path)
        assert set(tmp_path.rglob("*.html")) == written


def test_a_result_that_cannot_be_read_costs_the_pages_of_its_month_alone(gxe, tmp_path, caplog):
    asked = {"impressions": [gxe.ExpectColumnValuesToNotBeNull(column="user_id")]}
    run(asked, tmp_path)
    (broken,) = tmp_path.rglob("*.json")
    broken.write_text("{", encoding="utf-8")
    run(asked, tmp_path, day=date(2013, 10, 1))
    write_data_docs(tmp_path)
    assert data_docs_page(tmp_path, date(2013, 10, 1)).is_file()
    assert "2013-09 were not written" in caplog.text


def test_a_stage_run_again_replaces_what_it_left(gxe, tmp_path):
    run({"impressions": [gxe.ExpectColumnValuesToNotBeNull(column="user_id")]}, tmp_path)
    items = {"items": pd.DataFrame({"item_id": ["i"]})}
    run({"items": [gxe.ExpectColumnValuesToNotBeNull(column="item_id")]}, tmp_path, frames=items)
    kept = [path.parts[-5:-3] for path in (tmp_path / "2013-09" / "validations").rglob("*.json")]
    assert kept == [("validate_inputs", "items")]


@pytest.mark.parametrize(
    ("outcomes", "stopped"),
    [
        ([], False),
        (["passed", "not_enough_evidence"], False),
        (["passed", "failed"], True),
        (["passed", "errored"], True),
    ],
)
def test_a_gate_stays_shut_when_something_failed_or_errored(outcomes, stopped):
    assert stops([result(outcome) for outcome in outcomes]) is stopped


def test_expectations_without_evidence_are_recorded_unasked(gxe):
    asked = {"challenger": [gxe.ExpectColumnMinToBeBetween(column="auc_difference_high", min_value=-0.005)]}
    (found,) = not_enough_evidence(asked, observed="3 rows")
    assert found == ExpectationResult(
        "challenger.expect_column_min_to_be_between(auc_difference_high)",
        "not_enough_evidence",
        "3 rows",
        "column min to be between: min_value=-0.005",
    )


def test_results_become_rows_of_the_table_gate_results():
    rows = gate_results_rows([result("failed")], day=DAY, stage="validate_inputs", model_version=None)
    assert rows.schema == arrow_schema("gate_results")
    assert rows.to_pylist() == [
        {
            "dt": DAY,
            "stage": "validate_inputs",
            "model_version": None,
            "expectation": "impressions.label",
            "outcome": "failed",
            "observed": "1",
            "required": "2",
        }
    ]
    assert isinstance(gate_results_rows([], day=DAY, stage="validate_inputs", model_version=None), pa.Table)
