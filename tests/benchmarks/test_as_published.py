"""What is published is what the same version makes of the evening before; where it is not, the benchmark says so."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade_landed_rows import landed_rows, shown
from predicted_days import prediction, write_rows

from bahe_tasks.config import Config, GateConfig, PublishConfig
from bahe_tasks.engines.inline import run_day
from bahe_tasks.key_sums import DAY_US
from bahe_tasks.stages import score_pairs
from bahe_tasks.stages.publish_embeddings import publish_embeddings
from bahe_tasks.stores.delta_tables import read_table
from benchmarks.as_published import SMALL, comparison, judge, reference
from benchmarks.kit.judged_days import judged_days
from benchmarks.kit.next_day import LandedRows
from benchmarks.kit.served_days import ServedDay, beside_predictions, serve, serve_days
from benchmarks.quality import tiny

DAY = date(2024, 3, 5)
EVE = DAY - timedelta(days=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home that ran three of four small days, its judged third day, and what landed on all four; a third of the users are away on the third."""
    return new_home(tmp_path_factory.mktemp("as_published"))


def new_home(scratch, **sequences):
    any_day = datetime(2024, 1, 1)
    days = judged_days(None, first=any_day, report_from=any_day, last=any_day, small=SMALL, scratch=scratch)
    leave_out(days.landing, days.last - timedelta(days=1), users=("1", "4", "7"))
    config = tiny(scratch, days.landing)
    config = replace(config, landing=replace(config.landing, folder=str(days.landing)))
    config = replace(config, sequences=replace(config.sequences, **sequences))
    landed = LandedRows.read(days.landing, first=days.first, last=days.last, late_days=config.landing.late_days)
    run = days._replace(last=days.last - timedelta(days=1))
    served = list(serve_days(run, landed, config, scratch=scratch, told=True))
    return config, days, landed, served


def leave_out(landing, day, *, users):
    """Take what users did on a day out of its files, those whose ids end in one of the digits."""
    for source in ("impressions", "behavior_events"):
        for file in (landing / source / f"dt={day}").iterdir():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if not json.loads(line)["user_id"].endswith(users)]
            assert 0 < len(kept) < len(lines)
            file.write_text("".join(kept), encoding="utf-8")


def judged(home, served):
    """Return the document of served days."""
    config, days, landed, _ = home
    return judge(served, reference(served, landed, days, config), publish_days=config.publish.publish_days)


def served_last(home, tmp_path, *, told=True):
    """Serve the day that has not run, with labels as if it had and progressive scores of no meaning."""
    config, days, landed, _ = home
    asked = serve(days.last, landed, config, scratch=tmp_path, told=told)
    labels = landed.of["impressions"].set_index("impression_id")["label"]
    labels = labels.reindex(asked.rows["impression_id"]).to_numpy(float)
    return replace(asked, rows=asked.rows.assign(label=labels, progressive=0.5))


@pytest.mark.e2e
@pytest.mark.spark
def test_what_is_published_is_a_day_old_and_nothing_else(home):
    document = judged(home, home[3])
    figures = document.figures
    assert (figures["days"], figures["days_left_out"], figures["days_of_an_older_champion"]) == (1, 0, 0)
    assert figures["rows"] == figures["rows_day_old"] == len(home[3][0].rows) > 300
    assert figures["rows_apart"] == 0
    assert figures["auc_published"] == pytest.approx(figures["auc_day_old"], abs=1e-6)
    assert figures["auc_published"] != pytest.approx(figures["auc_progressive"], abs=1e-3)
    assert figures["repeated_pairs"] > 0
    assert figures["seconds_per_1000_pairs"] > 0
    of_users = [row["rows"] for row in document.rows if row["rows_of"] == "users" and row["value"] != "not_published"]
    assert sum(of_users) == figures["rows"]


@pytest.mark.e2e
@pytest.mark.spark
def test_histories_that_lose_a_day_for_each_new_one_are_a_day_old_too(tmp_path):
    short = new_home(tmp_path, history_days=1)
    figures = judged(short, short[3]).figures
    assert (figures["rows_day_old"], figures["rows_apart"]) == (figures["rows"], 0)


@pytest.mark.e2e
@pytest.mark.spark
def test_publishing_fewer_days_changes_no_score(home, tmp_path):
    """Of a log whose categorical values are all met each day: of others sums are published for so many days alone."""
    config, days, _, _ = home
    before = served_last(home, tmp_path)
    idle = (before.rows[["user_idle", "item_idle"]] > 0).any(axis=0)
    assert idle.all(), "the log has users and items that were away"
    publish_again(config, days, before, publish_days=1)
    try:
        after = served_last(home, tmp_path)
    finally:
        publish_again(config, days, before, publish_days=28)
    np.testing.assert_allclose(after.rows["published"], before.rows["published"], atol=1e-6)


@pytest.mark.e2e
@pytest.mark.spark
def test_users_lost_by_publishing_show(home, tmp_path, monkeypatch):
    """As it was once: whoever is not published has an empty history."""
    config, days, _, _ = home
    monkeypatch.setattr(
        score_pairs, "_idle_users", lambda users, model, *_: ([], np.zeros((0, model_width(model)), "f4"))
    )
    served = served_last(home, tmp_path)
    publish_again(config, days, served, publish_days=1)
    try:
        lost = served_last(home, tmp_path)
    finally:
        publish_again(config, days, served, publish_days=28)
    assert judged(home, [served]).figures["rows_apart"] == 0
    document = judged(home, [lost])
    apart = {row["value"]: row["rows_apart"] for row in document.rows if row["rows_of"] == "users"}
    assert apart["idle_to_7"] == document.figures["rows_apart"] > 50


@pytest.mark.e2e
@pytest.mark.spark
def test_histories_of_others_show(home, tmp_path, monkeypatch):
    def others(tables_dir, name, **of):
        rows = read_table(tables_dir, name, **of)
        if name != "user_embeddings":
            return rows
        place = rows.schema.get_field_index("embedding")
        return rows.set_column(
            place, "embedding", rows["embedding"].take(pa.array(np.roll(np.arange(rows.num_rows), 1)))
        )

    monkeypatch.setattr(score_pairs, "read_table", others)
    figures = judged(home, [served_last(home, tmp_path)]).figures
    assert figures["rows_apart"] > figures["rows"] / 2
    assert figures["auc_published"] != figures["auc_day_old"]


@pytest.mark.e2e
@pytest.mark.spark
def test_titles_that_are_not_told_show_on_new_items_alone(home, tmp_path):
    served = served_last(home, tmp_path, told=False)
    document = judged(home, [served])
    apart = {row["value"]: row["rows_apart"] for row in document.rows if row["rows_of"] == "items"}
    assert apart["stranger"] == document.figures["rows_apart"] > 0


@pytest.mark.e2e
@pytest.mark.spark
def test_after_a_refused_day_the_older_champion_is_judged_and_its_state_is_older(home, tmp_path):
    """Runs the last day of the home: stands after the tests that need it not to have run."""
    config, days, landed, _ = home
    refusing = GateConfig(min_gate_rows=10, min_calibration=5.0, max_calibration=9.0)
    assert run_day(days.last, replace(config, gate=refusing)).state == "refused"
    again = {name: rows.assign(landed_from=rows["landed_from"] + DAY_US) for name, rows in landed.of.items()}
    again["impressions"]["shown_at"] += DAY_US
    found = serve(days.last + timedelta(days=1), LandedRows(again), config, scratch=tmp_path, told=True)
    assert found.is_of_an_older_champion
    assert found.champion_day == days.last - timedelta(days=1)
    figures = judged(home, [replace(found, rows=found.rows.assign(label=0.0, progressive=0.5))]).figures
    assert (figures["days_of_an_older_champion"], figures["rows"] > 0, figures["rows_day_old"]) == (1, True, 0)


def publish_again(config, days, served, *, publish_days):
    """Publish the champion anew, users and items of other days."""
    changed = replace(config, publish=PublishConfig(publish_days=publish_days))
    found = publish_embeddings(days.last - timedelta(days=1), changed, version=served.model_version)
    assert found["state"] == "published"


def model_width(model):
    return len(model.features) * model.parts.of_history


@pytest.fixture
def served():
    """Two pairs of a day, scored by version 3."""
    rows = pd.DataFrame(
        {"impression_id": ["m0", "m1"], "user_id": ["u", "v"], "item_id": ["i", "i"], "published": [0.2, 0.7]}
    )
    rows = rows.assign(user_idle=0, item_idle=0, is_repeated=False)
    return ServedDay(DAY, rows, champion_day=EVE, model_version=3, seconds=2.0)


def predictions_of(version, *, numbers=(1, 0)):
    return [prediction(DAY, n, "uv"[n], "i", n, 0.4 + n / 10, version=version) for n in numbers]


def test_predictions_stand_beside_the_pairs_of_their_ids(served, tmp_path):
    config = Config(home=tmp_path)
    write_rows(config, "progressive_predictions", predictions_of(3))
    found = beside_predictions(served, config)
    assert found.rows[["label", "published", "progressive"]].values.tolist() == [[0, 0.2, 0.4], [1, 0.7, 0.5]]
    figures = judge([found], None, publish_days=28).figures
    assert (figures["auc_published"], figures["published_minus_progressive"], figures["rows_day_old"]) == (1, 0, 0)
    assert figures["seconds_per_1000_pairs"] == 1000


def test_a_day_that_another_version_predicted_or_none_is_left_out_and_counted(served, tmp_path):
    config = Config(home=tmp_path)
    without = beside_predictions(served, config)
    write_rows(config, "progressive_predictions", predictions_of(4))
    another = beside_predictions(served, config)
    document = judge([without, another], None, publish_days=28)
    assert [row["left_out"] for row in document.rows] == ["no_predictions", "another_version"]
    assert document.figures == {"days": 0, "days_of_an_older_champion": 0, "days_left_out": 2}


def test_other_impressions_than_were_asked_for_are_an_error(served, tmp_path):
    config = Config(home=tmp_path)
    write_rows(config, "progressive_predictions", predictions_of(3, numbers=(0,)))
    with pytest.raises(RuntimeError, match="2 pairs and 1 predictions have 1 ids in common"):
        beside_predictions(served, config)


def test_a_day_without_impressions_or_without_a_champion_is_left_out(tmp_path):
    config = Config(home=tmp_path)
    landed = landed_rows(impressions=[(DAY, 5, shown(0, "u", "i"))], items=[(EVE, 1, {"item_id": "i", "title": "t"})])
    found = [serve(day, landed, config, scratch=tmp_path, told=True) for day in (EVE, DAY)]
    assert [day.left_out for day in found] == ["no_impressions", "no_champion"]


def test_an_older_champion_is_told_by_its_day(served):
    assert not served.is_of_an_older_champion
    assert replace(served, champion_day=EVE - timedelta(days=1)).is_of_an_older_champion


def test_rows_apart_are_counted_among_those_that_have_a_day_old_score():
    rows = pd.DataFrame(
        {"label": [0, 1, 1, 0], "user_id": list("uvuv"), "day": np.datetime64(DAY, "s"), "published": [0.1, 0.8, 0.4, 0.5],
         "progressive": [0.1, 0.8, 0.6, 0.5], "day_old": [0.1, 0.8005, 0.45, np.nan]}
    )  # fmt: skip
    found = comparison(rows)
    assert (found["rows"], found["rows_day_old"], found["rows_apart"]) == (4, 3, 1)
    assert found["most_apart"] == pytest.approx(0.05)
    assert found["published_minus_progressive"] == pytest.approx(0.75 - 1)
    assert found["published_minus_day_old"] == 0
    assert found["auc_day_old"] == 1
