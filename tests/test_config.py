import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from bahe_tasks.config import SECTIONS, Config, ConfigError, TrainingConfig, config_from, load_config, render_config


def test_the_rendered_file_holds_every_setting_and_means_the_defaults(tmp_path):
    (tmp_path / "bahe.yaml").write_text(render_config())
    assert load_config(tmp_path) == Config(home=tmp_path.resolve())


def test_every_setting_stands_in_the_rendered_file_with_its_meaning_above_it():
    text = render_config()
    for section in SECTIONS.values():
        for item in fields(section):
            assert f"  # {item.metadata['meaning']}\n  # {item.name}: " in text


def test_uncommenting_the_whole_file_still_means_the_defaults():
    meanings = {f"  # {item.metadata['meaning']}" for section in SECTIONS.values() for item in fields(section)}
    lines = [line.replace("  # ", "  ") for line in render_config().splitlines() if line not in meanings]
    assert config_from(yaml.safe_load("\n".join(lines)), home=Path("home")) == Config(home=Path("home"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"traning": {}}, "did you mean 'training'"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"training": {"epochs": "three"}}, "must be of type int"),
        ({"training": {"epochs": True}}, "must be of type int"),
        ({"training": {"epochs": 0}}, "at least 1"),
        ({"encoder": {"pooling": "max"}}, "mean, first, last"),
        ({"encoder": {"prompt": "no place"}}, "must contain"),
        ({"model": {"features": "liked"}}, "must be a list"),
        ({"gate": {"held_out_share": 1.0}}, r"\[0, 1\)"),
        ({"model": {"head": "transformer"}}, "mlp, deepfm, dcn_v2, din"),
        ({"model": {"hidden_widths": []}}, "at least one width"),
        ({"model": {"extra_labels": ["label"]}}, "must not name label"),
        ({"model": {"extra_labels": ["saved", "saved"]}}, "one label twice"),
        ({"training": {"max_gradient_norm": 0}}, "must be above 0"),
        ({"training": {"early_stop_share": 0.1}}, "set epochs above 1"),
        ({"training": {"early_stop_share": 0.1, "epochs": 2, "window_days": 2}}, "needs start_from scratch"),
        ({"model": {"behavior_pooling": "first", "deep_attention": "causal"}}, "oldest behavior alone"),
        ({"training": {"label_weights": [1.0]}}, "mapping of names"),
        ({"training": {"label_weights": {"paid": "much"}}}, r"label_weights\.paid must be of type float"),
        ({"training": {"label_weights": {"paid": -1}}}, "must not be negative"),
        ({"sequences": {"max_behaviors_by_feature": {"bills": 51}}}, "between 1 and"),
        ({"training": {"level_learned": 1.5}}, r"training\.level_learned must be at most 1"),
        ({"airflow": {"wait_for": ["impressions/_SUCCESS"]}}, r"has no \{day\} and would be the same file every day"),
        ({"gate": {"max_calibration": float("nan")}}, r"gate\.max_calibration must be of type float"),
        ({"training": {"head_learning_rate": "inf"}}, r"head_learning_rate must be of type float"),
        ({"gate": {"min_calibration": 2, "max_calibration": 1}}, "min_calibration must be at most"),
        ({"airflow": {"port": 99999}}, "between 1 and 65535"),
        ({"airflow": {"schedule_start": "yesterday"}}, "schedule_start: "),
        ({"registry": {"model_name": ""}}, "model_name must be a name"),
        ({"registry": {"model_name": "a/b"}}, "model_name must be a name"),
        ({"registry": {"model_name": "tom's"}}, 'without slash, colon and quotes, not "tom\'s"'),
        ({"training": 3}, "mapping of settings"),
        ([], "mapping of sections"),
    ],
)
def test_a_bad_setting_is_refused_by_name(document, message):
    with pytest.raises(ConfigError, match=message):
        config_from(document, home=Path("home"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("landing: {late_days: -1}", "landing.late_days must be at least 0, not -1"),
        ("gate: {held_out_share: 1}", "gate.held_out_share must be in [0, 1), not 1.0"),
        ("training: {max_gradient_norm: 0}", "training.max_gradient_norm must be above 0, not 0.0"),
        ("encoder: {prompt: x}", "encoder.prompt must contain {text}"),
        ("training: {seed: -5}", "training.seed must be at least 0, not -5"),
        ("spark: {driver_memory: lots}", "spark.driver_memory must be a size such as 4g or 900m, not 'lots'"),
        (
            "spark: {master: 'local[x]'}",
            "spark.master must be local[N], spark://HOST:PORT, k8s://URL or yarn, not 'local[x]'",
        ),
        ("airflow: {port: 0}", "airflow.port must be between 1 and 65535, not 0"),
        (
            "sequences: {max_events_per_sequence: 1}",
            "sequences.max_events_per_sequence must not be below max_behaviors_per_sequence",
        ),
    ],
)
def test_a_bad_setting_is_told_as_it_stands_in_the_file(text, message, tmp_path):
    (tmp_path / "bahe.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path)
    assert str(error.value) == f"{tmp_path}/bahe.yaml: {message}"


@pytest.mark.parametrize(
    "master", ["local", "local[*]", "local[4, 2]", "spark://host:7077", "k8s://https://host", "yarn"]
)
def test_every_kind_of_spark_master_may_be_named(master):
    assert config_from({"spark": {"master": master}}, home=Path("home")).spark.master == master


def test_yaml_numbers_without_a_dot_are_numbers():
    config = config_from(yaml.safe_load("training: {deep_learning_rate: 1e-4}"), home=Path("home"))
    assert config.training.deep_learning_rate == 1e-4


def test_a_home_without_settings_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="bahe init"):
        load_config(tmp_path)


@pytest.mark.parametrize("part", ["#", "?", "*", "[", "]", "{", "^", "|", "\\", "$", "%41"])
def test_a_home_at_a_path_that_is_read_as_more_than_one_is_refused(part, tmp_path):
    home = tmp_path / f"a{part}b"
    home.mkdir()
    (home / "bahe.yaml").touch()
    with pytest.raises(ConfigError, match=re.escape(f"has {part} in its path")):
        load_config(home)
    (tmp_path / "bahe.yaml").touch()
    assert load_config(tmp_path, landing_dir=str(home)).landing_dir == home


@pytest.mark.parametrize("part", ["%", "$-", "}", " ", "'", "&", "+", "=", ",", ";", "@", "ä", "~"])
def test_a_home_may_be_at_any_other_path(part, tmp_path):
    home = tmp_path / f"a{part}b"
    home.mkdir()
    (home / "bahe.yaml").touch()
    assert load_config(home).home == home


def test_the_landing_folder_can_be_overridden_and_is_relative_to_the_home(tmp_path):
    (tmp_path / "bahe.yaml").write_text("training: {epochs: 2}\n")
    assert load_config(tmp_path).landing_dir == tmp_path / "landing"
    config = load_config(tmp_path, landing_dir=str(tmp_path / "elsewhere"))
    assert config.landing_dir == tmp_path / "elsewhere"
    assert config.training.epochs == 2
    (tmp_path / "bahe.yaml").write_text("landing: /data/landing\n")
    with pytest.raises(ConfigError, match="mapping of settings"):
        load_config(tmp_path, landing_dir=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("text", ["landing: []", "landing: false", "landing: 0", "[]", "0", "false", "''"])
def test_only_what_is_left_out_stands_for_the_defaults(text, tmp_path):
    (tmp_path / "bahe.yaml").write_text(text)
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_config(tmp_path)
    for empty in ("", "landing:\n  # folder: landing\n"):
        (tmp_path / "bahe.yaml").write_text(empty)
        assert load_config(tmp_path) == Config(home=tmp_path.resolve())


def test_a_landing_folder_may_be_in_the_user_s_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/users/u")
    (tmp_path / "bahe.yaml").write_text("landing: {folder: ~/log}\n")
    assert load_config(tmp_path).landing_dir == Path("/users/u/log")
    assert load_config(tmp_path, landing_dir="~/other").landing_dir == Path("/users/u/other")


def test_the_settings_in_force_can_be_read_back_and_name_the_default_they_differ_from(tmp_path):
    config = config_from(
        {"training": {"label_weights": {"paid": 0.5}, "epochs": 3}, "model": {"hidden_widths": [8]}}, home=tmp_path
    )
    text = render_config(config)
    assert "  epochs: 3  # default: 1\n" in text
    assert "  batch_size: 0\n" in text
    assert config_from(yaml.safe_load(text), home=tmp_path) == config


def test_batches_grow_with_the_root_of_the_rows_unless_their_size_is_given():
    training = TrainingConfig()
    assert [training.batch_size_of(rows) for rows in (0, 500, 1024, 4 * 1024, 100 * 1024)] == [32, 32, 32, 64, 320]
    assert TrainingConfig(batch_size=8).batch_size_of(100 * 1024) == 8
    assert (training.scored_at_once, TrainingConfig(batch_size=8).scored_at_once) == (256, 64)


def test_a_text_feature_may_read_fewer_behaviors_than_the_others():
    sequences = config_from({"sequences": {"max_behaviors_by_feature": {"bills": 3}}}, home=Path("home")).sequences
    assert (sequences.behaviors_read("bills"), sequences.behaviors_read("visits")) == (3, 50)


def test_a_section_or_setting_that_stands_twice_is_refused(tmp_path):
    for text in ("training:\n  epochs: 2\ntraining:\n  seed: 3\n", "training: {epochs: 2, epochs: 3}\n"):
        (tmp_path / "bahe.yaml").write_text(text)
        with pytest.raises(ConfigError, match="stands twice"):
            load_config(tmp_path)


def test_a_day_needs_no_quotes(tmp_path):
    (tmp_path / "bahe.yaml").write_text("airflow: {schedule_start: 2026-01-02}\n")
    assert load_config(tmp_path).airflow.schedule_start == "2026-01-02"
    (tmp_path / "bahe.yaml").write_text("airflow: {schedule_start: 2026-02-30}\n")
    with pytest.raises(ConfigError, match="2026-02-30"):
        load_config(tmp_path)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "bahe.yaml").write_bytes(b"training: {epochs: 2} # \xff\n")
    with pytest.raises(ConfigError, match=r"bahe\.yaml is not valid YAML"):
        load_config(tmp_path)


def test_a_long_setting_with_spaces_is_read_back_as_it_was(tmp_path):
    prompt = "A user of our shop did this, in the words of the shop's own log of events, item by item: {text}"
    config = config_from(
        {"encoder": {"prompt": prompt}, "spark": {"jvm_options": "-XX:+UseSerialGC " * 8}}, home=tmp_path
    )
    (tmp_path / "bahe.yaml").write_text(render_config(config))
    assert load_config(tmp_path).encoder == config.encoder
    assert load_config(tmp_path).spark == config.spark
