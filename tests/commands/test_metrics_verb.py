import json
from datetime import date

import pytest
from predicted_days import impression, prediction, write_rows
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.config import load_config

DAY = date(2024, 1, 2)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "bahe.yaml").write_text("gate: {bootstrap_samples: 40}", encoding="utf-8")
    config = load_config(tmp_path)
    write_rows(
        config,
        "progressive_predictions",
        [prediction(DAY, n, f"u{n % 4}", "i", int(n % 3 == 0), 0.2 + n / 20) for n in range(12)],
    )
    write_rows(config, "impressions", [impression(DAY, n, f"u{n % 4}", "i", bills=n) for n in range(12)])
    return tmp_path


def run(home, *options):
    answer = CliRunner().invoke(app, ["metrics", "--home", str(home), *options])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_json_has_the_days_average_and_pool_and_more_only_when_asked_for(home):
    plain, full = json.loads(run(home, "--json")), json.loads(run(home, "--json", "--intervals", "--segments"))
    assert set(plain) == {"days", "average", "pooled"}
    assert set(full) == {*plain, "segments", "bootstrap"}
    assert full["pooled"]["intervals"]["auc"]["low"] <= plain["pooled"]["auc"]
    assert full["bootstrap"]["samples"] == 40
    assert {record["value"] for record in full["segments"]} == {"0", "1-9", "10-49"}


def test_a_person_sees_the_day_the_pool_and_a_dash_for_what_does_not_exist(home):
    shown = run(home)
    assert str(DAY) in shown
    assert shown.index("average") < shown.index("pooled")
    assert "segment" not in shown
    full = run(home, "--intervals", "--segments")
    assert "history length" in full
    assert "40 resamples of users" in full
    alone = next(line for line in full.splitlines() if "10-49" in line)  # two rows, of two users, with no click
    assert "–" in alone


def test_a_home_without_predictions_shows_an_empty_table_and_says_what_makes_some(tmp_path):
    (tmp_path / "bahe.yaml").write_text("", encoding="utf-8")
    assert "pooled" in run(tmp_path, "--intervals", "--segments")
    [said] = CliRunner().invoke(app, ["metrics", "--home", str(tmp_path)]).stderr.splitlines()
    assert said == "no day has progressive predictions yet: the first that has a model before it makes some"


def test_days_without_predictions_are_told_beside_a_document_of_the_same_shape(home):
    asked = ["metrics", "--home", str(home), "--from", "2030-01-01", "--to", "2030-01-02", "--json"]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 0
    empty, full = json.loads(answer.stdout), json.loads(run(home, "--json"))
    assert (empty["days"], empty["pooled"]["rows"]) == ([], 0)
    assert [(name, set(empty[name])) for name in ("average", "pooled")] == [
        (name, set(full[name])) for name in ("average", "pooled")
    ]
    [said] = answer.stderr.splitlines()
    assert said.startswith("none of the days asked for has progressive predictions")
    assert said.endswith(f"are {DAY} to {DAY}")


def test_what_a_log_of_one_user_or_without_clicks_cannot_tell_is_named_beside_the_answer(tmp_path):
    (tmp_path / "bahe.yaml").write_text("gate: {bootstrap_samples: 40}", encoding="utf-8")
    rows = [prediction(DAY, n, "u", "i", 0, 0.2 + n / 20) for n in range(5)]
    write_rows(load_config(tmp_path), "progressive_predictions", rows)
    answer = CliRunner().invoke(app, ["metrics", "--home", str(tmp_path), "--intervals", "--json"])
    assert json.loads(answer.stdout)["pooled"]["auc"] is None
    first, second = answer.stderr.splitlines()
    assert "no auc, gauc, mean_user_auc, normalised_entropy, calibration (" in first
    assert "all rows are of one" in second


def test_nothing_is_said_beside_numbers_that_all_exist(home):
    assert CliRunner().invoke(app, ["metrics", "--home", str(home), "--intervals"]).stderr == ""
