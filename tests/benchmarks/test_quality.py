import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config, LandingConfig, NumbersConfig
from bahe_tasks.sources.synthetic import synthesize
from benchmarks import quality
from benchmarks.kit.in_memory_log import read_log
from benchmarks.kit.judged_days import JudgedDays, read_judged, synthetic
from benchmarks.kit.label_times import day_of
from benchmarks.kit.settings import config_with
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.progressive import Scores, progressive_bahe
from benchmarks.public_logs.shapes import SHAPES, reshape


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("quality")
    landing = synthetic(scratch, days=3, users=40)
    config = quality.tiny(scratch, landing)
    days = JudgedDays(landing, date(2024, 1, 1), report_from=date(2024, 1, 3), last=date(2024, 1, 3))
    return quality.prepare(days, config, cache=scratch / "cache")


@pytest.mark.parametrize("shape", ["no_titles", "ids_alone"])
def test_a_log_without_texts_is_compared_too(comparison, tmp_path, shape):
    reshape(synthetic(tmp_path, days=3, users=40), tmp_path / shape, SHAPES[shape])
    days = JudgedDays(tmp_path / shape, date(2024, 1, 1), report_from=date(2024, 1, 3), last=date(2024, 1, 3))
    found = quality.compare(quality.prepare(days, comparison.config, cache=tmp_path), ["bahe", *PEERS], seeds=1)
    assert found.figures["rows"] == comparison.judged.sum()
    assert all(row["auc"] > 0.4 for row in found.rows), found.rows  # NaN where a model found nothing


def test_labels_that_come_a_day_late_are_learned_from_then(comparison, tmp_path):
    config = replace(comparison.config, landing=LandingConfig(label_delay_s=86_400))
    landing = synthetic(tmp_path, days=3, users=40)
    days = JudgedDays(landing, date(2024, 1, 1), report_from=date(2024, 1, 2), last=date(2024, 1, 3))
    found = quality.compare(quality.prepare(days, config, cache=tmp_path), ["bahe", *PEERS], seeds=1)
    assert found.figures["rows"] == comparison.judged.sum()  # those of the third day, when there is a model
    assert found.figures["auc"] != quality.compare(comparison, ["bahe"], seeds=1).figures["auc"]


def test_no_label_is_learned_by_bahe_before_it_is_known(comparison, tmp_path):
    landing = synthetic(tmp_path, days=4, users=30)
    log = read_log(landing, landing_settings=LandingConfig(label_delay_s=100_000))  # a day and some hours
    config = quality.tiny(tmp_path, landing)
    embeddings = log.encode(checkpoint_dir(config.encoder.checkpoint), config.encoder)
    first = int(np.searchsorted(day_of(log.rows.shown_at), np.datetime64("2024-01-04")))
    unknown = log.known_at >= log.rows.shown_at[first]
    assert unknown[:first].any()
    changed = replace(log, rows=replace(log.rows, labels=np.where(unknown, 1 - log.rows.labels, log.rows.labels)))
    before, after = (progressive_bahe(of, embeddings, config, seed=1).probabilities for of in (log, changed))
    assert np.isfinite(before[first:]).all()
    np.testing.assert_array_equal(before, after)
    known = replace(log, rows=replace(log.rows, labels=np.where(unknown, log.rows.labels, 1 - log.rows.labels)))
    assert (progressive_bahe(known, embeddings, config, seed=1).probabilities[first:] != before[first:]).all()


def test_a_synthetic_log_with_its_flaws_is_compared_and_late_rows_are_not_judged(comparison, tmp_path):
    synthesize(tmp_path / "landing", days=4, users=40, seed=1, first_day=date(2024, 1, 1))
    days = JudgedDays(tmp_path / "landing", date(2024, 1, 1), report_from=date(2024, 1, 2), last=date(2024, 1, 4))
    flawed = quality.prepare(days, comparison.config, cache=tmp_path)
    late = flawed.log.label_times.is_late & (day_of(flawed.log.rows.shown_at) >= np.datetime64("2024-01-02"))
    assert late.any()
    assert not flawed.judged[late].any()
    found = quality.compare(flawed, ["bahe", "sum_of_means_running", "trees"], seeds=1)
    assert all(row["auc"] > 0.4 for row in found.rows)


def test_a_log_of_other_files_is_wrong_use(tmp_path):
    with pytest.raises(ValueError, match="has no impressions"):
        read_log(tmp_path)


def test_judged_rows_are_those_of_the_days_reported(comparison):
    days = comparison.log.rows.shown_at // 86_400_000_000 - (date(2024, 1, 1) - date(1970, 1, 1)).days
    np.testing.assert_array_equal(comparison.judged, days == 2)


def test_cold_rows_have_a_user_or_item_seen_fewer_than_ten_times_before(comparison):
    rows = comparison.log.rows
    for r in np.flatnonzero(comparison.judged)[::20]:
        earlier = rows.shown_at < rows.shown_at[r]
        seen = [(ids[earlier] == ids[r]).sum() for ids in (rows.user_ids, rows.item_ids)]
        assert comparison.cold[r] == (min(seen) < 10)


def test_without_a_peer_there_is_nothing_to_compare_with(comparison):
    assert quality.compare(comparison, ["bahe"], seeds=1).figures.keys() == {"rows", "cold_rows", "auc"}


def test_figures_compare_with_the_best_peer_and_the_trees(comparison):
    document = quality.compare(comparison, ["bahe", "user_mean", "item_mean", "trees"], seeds=1)
    auc = {row["model"]: row["auc"] for row in document.rows}
    best = max(value for name, value in auc.items() if name != "bahe")
    assert document.figures["auc"] == auc["bahe"]
    assert document.figures["auc_minus_best_peer"] == pytest.approx(auc["bahe"] - best)
    assert document.figures["auc_minus_best_peer_low"] < document.figures["auc_minus_best_peer"]
    assert document.figures["cold_auc_minus_trees_low"] <= document.figures["cold_auc_minus_trees"]
    for row in document.rows[1:]:
        assert row["bahe_minus"] == pytest.approx(auc["bahe"] - row["auc"])
        assert row["low"] < row["bahe_minus"] < row["high"]
        assert np.isnan([row["low_by_day"], row["high_by_day"]]).all(), "of one day nothing is drawn"


def test_the_table_shows_what_only_peers_have_whichever_row_is_first(comparison, capsys):
    quality.compare(comparison, ["user_mean", "bahe"], seeds=1).show(as_json=False)
    assert "low_by_day" in capsys.readouterr().out


def test_an_interval_of_days_draws_whole_days(comparison):
    """The better model of one day is the worse one of the other two, by as much: users say which is better, days do not."""
    labels, shown = comparison.log.rows.labels.astype(float), comparison.log.rows.shown_at
    day = shown // 86_400_000_000 - shown.min() // 86_400_000_000
    rng = np.random.default_rng(0)
    good, bad = (share * labels + rng.random(len(labels)) for share in (1.0, 0.2))
    a, b = np.where(day < 2, good, bad), np.where(day < 2, bad, good)
    every = np.ones(len(labels), bool)
    by_user, by_day = (comparison.minus(a, b, every, drawn=drawn) for drawn in ("users", "days"))
    assert by_user.estimate == by_day.estimate
    assert by_user.low > 0 > by_day.low


def test_scores_of_a_seed_are_kept_and_read_again(comparison):
    found = comparison.peer("deepfm", 1)
    again = comparison.peer("deepfm", 1)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)
    assert again.cpu_s == found.cpu_s
    assert len(list(comparison.cache.glob("deepfm-*"))) == 1


def test_scores_of_another_log_or_other_days_are_not_taken_for_these(comparison, tmp_path):
    landing = synthetic(tmp_path / "one", days=3, users=40)
    cache = tmp_path / "cache"

    def kept_in(landing, last, config=comparison.config):
        days = JudgedDays(landing, date(2024, 1, 1), report_from=date(2024, 1, 2), last=last)
        return quality.prepare(days, config, cache=cache).cache

    first = kept_in(landing, date(2024, 1, 3))
    assert kept_in(synthetic(tmp_path / "same", days=3, users=40), date(2024, 1, 3)) == first
    assert kept_in(landing, date(2024, 1, 2)) != first
    config = comparison.config
    for other in (
        replace(config, numbers=NumbersConfig(as_of="day_start")),
        replace(config, landing=LandingConfig(label_horizon_days=1)),
        replace(config, encoder=replace(config.encoder, prompt="of {text}")),
    ):
        assert kept_in(landing, date(2024, 1, 3), other) != first
    fewer_shallow = replace(config, encoder=replace(config.encoder, num_shallow_layers=2))
    assert kept_in(landing, date(2024, 1, 3), fewer_shallow) == first, "peers read the whole LLM"
    file = next((landing / "impressions").glob("*/*.jsonl"))
    file.write_text(file.read_text().replace('"label":0', '"label":1', 1))
    assert kept_in(landing, date(2024, 1, 3)) != first
    assert first.parent == cache


def test_a_model_without_a_score_for_a_judged_row_is_an_error(comparison, monkeypatch):
    nothing = Scores(np.full(len(comparison.judged), np.nan), 1.0)
    monkeypatch.setattr(quality.Comparison, "peer", lambda *_: nothing)
    with pytest.raises(ValueError, match="user_mean gave no score"):
        quality.compare(comparison, ["user_mean"], seeds=1)


def test_the_first_day_of_a_log_is_not_judged(tmp_path):
    config = Config(home=tmp_path)
    landing = synthetic(tmp_path, days=3, users=20)
    days = JudgedDays(landing, date(2023, 12, 1), report_from=date(2023, 12, 20), last=date(2024, 1, 3))
    log, judged = read_judged(days, config)
    np.testing.assert_array_equal(judged, log.rows.shown_at >= np.datetime64("2024-01-02", "us").astype(int))
    with pytest.raises(typer.BadParameter, match="no impression to judge"):
        read_judged(days._replace(last=date(2024, 1, 1)), config)


def test_a_row_averages_metrics_over_seeds(comparison):
    labels = comparison.log.rows.labels.astype(float)
    right, wrong = Scores(0.2 + 0.5 * labels, 1.0), Scores(0.7 - 0.5 * labels, 3.0)
    row = comparison.row("x", [right, wrong], "none")
    assert (row["auc"], row["auc_of_days"], row["auc_of_mean"]) == (0.5, 0.5, 0.5)
    assert (row["seeds"], row["cpu_s"]) == (2, 2.0)


def test_the_program_prints_one_document():
    result = CliRunner().invoke(quality.app, ["--json", "--small", "--only", "bahe", "--only", "sum_of_means"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["model"] for row in document["rows"]] == ["bahe", "sum_of_means"]
    assert 0 < document["figures"]["oracle_share"] < 1.5


def test_a_model_unknown_is_wrong_use():
    assert CliRunner().invoke(quality.app, ["--small", "--only", "nothing"]).exit_code == 2


def test_a_setting_is_taken_over(tmp_path):
    config = config_with(["encoder.num_shallow_layers=6", "model.features=[liked]"], home=tmp_path)
    assert config.encoder.num_shallow_layers == 6
    assert config.model.features == ("liked",)


@pytest.mark.parametrize(
    "given",
    [
        "model.text_topics",
        "text_topics=3",
        "model.nothing=3",
        "model.text_topics=many",
        "model.features=[liked",
        "gate.held_out_share=0.1",
    ],
)
def test_a_setting_that_cannot_be_meant_is_wrong_use(tmp_path, given):
    with pytest.raises(typer.BadParameter):
        config_with([given], home=tmp_path)


@pytest.mark.parametrize("wrong", [["--small"], ["--first", "2013-10-01"], ["--small", "--set", "model.text_topics=8"]])
def test_days_that_cannot_be_meant_are_wrong_use(tmp_path, wrong):
    assert CliRunner().invoke(quality.app, [str(tmp_path), "--only", "bahe", *wrong]).exit_code == 2


def test_peers_that_read_others_stand_after_them():
    names = list(PEERS)
    assert all(names.index(other) < names.index(name) for name, entry in PEERS.items() for other in entry.reads)
