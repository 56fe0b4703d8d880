import re

import pytest

from bahe_tasks.report.html import write_report

DAY = {
    "day": "2024-01-02",
    "landed_rows": 10,
    "table_rows": 7,
    "duplicate_rows": 1,
    "quarantined_rows": 2,
    "impressions": 4,
    "new_behaviors": 3,
    "reuse_rate": 0.25,
    "gate": "refused",
    "champion_version": None,
    "stale": False,
}
SCORED = {
    "day": "2024-01-02",
    "rows": 4,
    "auc": 0.6125,
    "gauc": float("nan"),
    "logloss": 0.69,
    "calibration": 1.0,
    "model_version": 1,
}


@pytest.fixture
def page(tmp_path):
    target = tmp_path / "report" / "index.html"
    write_report(
        target,
        days=[DAY],
        metrics={"days": [SCORED], "pooled": {**SCORED, "day": None}},
        gate_results=[
            {"dt": "2024-01-02", "stage": "validate_challenger", "model_version": 2, "expectation": "auc <b>loss</b>",
             "outcome": "failed", "observed": "-0.02", "required": ">= -0.005"}
        ],
        versions=[],
        champion=None,
    )  # fmt: skip
    return target.read_text(encoding="utf-8")


def test_the_page_shows_the_days_numbers_and_a_dash_for_what_does_not_exist(page):
    assert "<td>0.6125</td><td>–</td>" in page
    assert "<td>10</td><td>7</td><td>1</td><td>2</td>" in page


def test_intervals_stand_under_their_numbers_and_segments_have_a_table(tmp_path):
    ends = {"auc": {"low": 0.512, "high": 0.7}, "gauc": {"low": float("nan"), "high": 0.0}, "calibration": {"low": 0.8, "high": float("inf")}}  # fmt: skip
    judged = {**SCORED, "intervals": ends}
    without_click = {**judged, "intervals": {"calibration": {"low": float("inf"), "high": float("inf")}}}
    metrics = {
        "days": [judged],
        "average": {**judged, "rows": None},
        "pooled": judged,
        "segments": [
            {**judged, "segment": "user_impressions", "value": "10+", "positives": 3},
            {**without_click, "segment": "user_impressions", "value": "0", "positives": 0},
        ],
        "bootstrap": {"level": 0.95, "samples": 77, "seed": 1, "drawn": "users"},
    }
    write_report(tmp_path / "r.html", days=[DAY], metrics=metrics, gate_results=[], versions=[], champion=None)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<td>0.6125<small>0.512 – 0.700</small></td><td>–</td>" in page
    assert "<td>1.0000<small>0.800 – ∞</small></td>" in page
    assert "inf –" not in page  # no click in any resample
    assert "95 % interval, 77 resamples of users" in page
    assert "<td>user_impressions</td><td>10+</td><td>4</td><td>3</td>" in page
    assert "<td>average</td><td>–</td>" in page


def test_a_refused_gate_is_marked_and_its_text_is_escaped(page):
    assert '<tr class="refused"><td>2024-01-02</td><td>validate_challenger</td>' in page
    assert "auc &lt;b&gt;loss&lt;/b&gt;" in page


def test_the_page_loads_nothing_from_outside(page):
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def page_without_days(tmp_path, champion):
    pooled = {"rows": 0, "auc": None, "gauc": None, "logloss": None, "calibration": None}
    metrics = {"days": [], "pooled": pooled}
    write_report(tmp_path / "r.html", days=[], metrics=metrics, gate_results=[], versions=[], champion=champion)
    return (tmp_path / "r.html").read_text()


def test_a_home_without_any_day_still_gives_a_page(tmp_path):
    assert "No champion yet" in page_without_days(tmp_path, None)


@pytest.mark.parametrize("in_force", [True, False])
def test_a_champion_that_is_no_longer_in_force_is_said_to_be(tmp_path, in_force):
    page = page_without_days(tmp_path, {"version": 2, "day": "2024-01-02", "in_force": in_force})
    said = "Champion: version 2, trained up to 2024-01-02"
    assert f"{said}{'.' if in_force else '; no longer in force.'}" in page
