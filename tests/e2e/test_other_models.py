"""Whole days with models that are not the default: every setting of model and training meets the tables once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FIRST, Log, small_config

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import ItemDependentUserError
from bahe_tasks.core.model_files import OPTIMIZER_FILE, load_model, load_optimizer_state
from bahe_tasks.core.model_spec import EncoderMismatchError, ModelMismatchError
from bahe_tasks.engines.inline import run_backfill, run_day
from bahe_tasks.stages.fine_tune import fine_tune
from bahe_tasks.stages.model_of_day import MissingColumnError
from bahe_tasks.stages.pair_sums import published_pair_sums
from bahe_tasks.stages.score_pairs import score_file
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.fine_tune_runs import LOGGED_MODEL_TAG
from bahe_tasks.stores.model_registry import champion as registered_champion
from bahe_tasks.stores.model_registry import connect, local_model_folder, versions

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
SECOND = FIRST + timedelta(days=1)


def with_settings(config: Config, *, model: dict, training: dict | None = None) -> Config:
    return replace(config, model=replace(config.model, **model), training=replace(config.training, **(training or {})))


@pytest.fixture(scope="module")
def two_days(tmp_path_factory, spark):
    """Two days of a model whose user side depends on the item, with adapters, labels and state that goes on."""
    config = with_settings(
        small_config(tmp_path_factory.mktemp("home")),
        model={
            "head": "din",
            "item_reading": "beside",
            "deep_tuning": "lora",
            "deep_attention": "causal",
            "behavior_pooling": "attention",
            "position_buckets": 4,
            "extra_labels": ("saved",),
        },
        training={
            "keep_optimizer_state": True,
            "label_weighting": "uncertainty",
            "epochs": 2,
            "early_stop_share": 0.2,
            "warmup_steps": 3,
            "decay_steps": 5,
        },
    )
    log = Log(config.landing_dir)
    for day in (FIRST, SECOND):
        log.ordinary_day(day)
    return config, list(run_backfill(FIRST, SECOND, config))


@pytest.fixture
def champion(two_days):
    config, _ = two_days
    return load_model(local_model_folder(connect(config), 2))


def test_days_of_an_item_dependent_model_are_done(two_days, champion):
    config, outcomes = two_days
    assert [(o.state, o.message) for o in outcomes] == [("done", "")] * 2
    _, spec = champion
    _, parent = load_model(local_model_folder(connect(config), 1))
    assert spec.trained_steps > parent.trained_steps > 0
    assert spec.labels == ("label", "saved")
    assert spec.trained_steps > 0
    assert not list((config.home / "work").rglob("*.safetensors"))


def test_the_optimiser_s_state_goes_from_version_to_version(two_days):
    config, _ = two_days
    states = [load_optimizer_state(local_model_folder(connect(config), version)) for version in (1, 2)]
    steps = [int(state["head.outputs.label:label.weight/step"]) for state in states]
    assert 0 < steps[0] < steps[1]
    assert OPTIMIZER_FILE == "optimizer.safetensors"


def test_no_user_embedding_is_published_and_pairs_are_scored_from_histories(two_days, champion, tmp_path, monkeypatch):
    config, outcomes = two_days
    model, _ = champion
    assert outcomes[-1].results["publish_embeddings"]["state"] == "published"
    assert read_table(config.tables_dir, "user_embeddings").num_rows == 0
    assert read_table(config.tables_dir, "item_embeddings").num_rows > 0
    with pytest.raises(ItemDependentUserError):
        model.user_embedding(None)
    users = ["u0", "u1", "nobody"]
    pairs = pd.DataFrame([(u, i) for u in users for i in ("i00", "i10", "no item")], columns=["user_id", "item_id"])
    pairs["title"] = [None, None, "a title nobody has seen"] * 3
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    counts = score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", config)
    assert (counts["users_without_history"], counts["items_not_published"]) == (1, 1)
    scores = pd.read_csv(tmp_path / "out.csv")["click_probability"].to_numpy().reshape(3, 3)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 9  # the item matters to each user, the user to each item
    # Sums of a user whose history is read are read too, be he among the published ones or not.
    none_published = lambda *args, **named: read_table(*args, **named).slice(0, 0)  # noqa: E731
    monkeypatch.setattr("bahe_tasks.stages.pair_sums.read_table", none_published)
    score_file(tmp_path / "pairs.csv", tmp_path / "again.csv", config)
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "again.csv")["click_probability"], scores.reshape(-1))


def test_the_pyfunc_reads_histories_and_gives_the_same(two_days, champion, tmp_path):
    """u0 has three bills and a visit a day; the table of sequences of the last day holds them all."""
    import mlflow.pyfunc

    config, _ = two_days
    _, spec = champion
    stored = read_table(config.tables_dir, "behavior_embeddings").to_pydict()
    vector = {
        key: np.frombuffer(blob, "<f2").astype(float).tolist()
        for key, blob in zip(stored["behavior_key"], stored["embedding"], strict=True)
    }
    events = read_table(config.tables_dir, "behavior_events").to_pandas()
    events = events[events["user_id"] == "u0"].sort_values(["occurred_at", "behavior_key"])
    end = pd.Timestamp(SECOND + timedelta(days=1), tz="UTC")
    items = read_table(config.tables_dir, "items").to_pandas()
    item = items[(items["item_id"] == "i00")].sort_values("updated_at").iloc[-1]
    row = {"user_id": "u0", "item_id": "i00", "title_embedding": vector[item["title_key"]]}
    row |= {f"cat_{name}": value for name, value in item["cat"]} | {f"num_{n}": float(v) for n, v in item["num"]}
    for feature in spec.features:
        newest = events[events["feature"] == feature].tail(8)
        row[f"behaviors_{feature}"] = [vector[key] for key in newest["behavior_key"]]
        row[f"ages_s_{feature}"] = (end - newest["occurred_at"]).dt.total_seconds().tolist()
    version = registered_champion(connect(config))
    frame = pd.DataFrame([row])
    cat = {name: frame[f"cat_{name}"].to_numpy(object) for name, _ in item["cat"]}
    frame["sums"] = list(published_pair_sums(frame, {"i00": item["title"]}, cat, version, config))
    served = mlflow.pyfunc.load_model("models:/bahe_ctr@champion").predict(frame)
    (tmp_path / "pair.csv").write_text("user_id,item_id\nu0,i00\n")
    score_file(tmp_path / "pair.csv", tmp_path / "out.csv", config)
    expected = pd.read_csv(tmp_path / "out.csv")["click_probability"]
    np.testing.assert_allclose(served["click_probability"], expected, atol=1e-6)


def test_another_head_over_the_same_lineage_is_refused_and_a_new_lineage_is_not(two_days):
    config, _ = two_days
    changed = with_settings(config, model={"head": "dcn_v2"})
    with pytest.raises(ModelMismatchError, match=r"model\.head.*registry\.model_name"):
        fine_tune(SECOND, changed)
    fresh = replace(changed, registry=replace(config.registry, model_name="bahe_ctr_dcn"))
    assert run_day(SECOND, fresh).state == "done"
    assert [version.parent_version for version in versions(connect(fresh))] == [None]


@pytest.mark.parametrize("start_from", ["parent", "scratch"])
def test_a_model_of_another_encoder_scores_nothing(two_days, start_from, tmp_path):
    """Another prompt gives vectors of the same width: nothing but the check could tell them apart."""
    config, _ = two_days
    changed = replace(config, encoder=replace(config.encoder, prompt="query: {text}"))
    before = read_table(config.tables_dir, "progressive_predictions").num_rows
    with pytest.raises(EncoderMismatchError, match=r"registry\.model_name"):
        fine_tune(
            SECOND, with_settings(changed, model={}, training={"start_from": start_from, "early_stop_share": 0.0})
        )
    assert read_table(config.tables_dir, "progressive_predictions").num_rows == before
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nu0,i00\n")
    with pytest.raises(EncoderMismatchError):
        score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", changed)


@pytest.mark.parametrize(
    ("setting", "name"),
    [("cat_columns", "brand"), ("num_columns", "price"), ("features", "chats"), ("extra_labels", "paid")],
)
def test_columns_the_log_does_not_have_are_refused_by_name(two_days, setting, name):
    config, _ = two_days
    with pytest.raises(MissingColumnError, match=rf"model\.{setting} names {name}.*the log has"):
        fine_tune(SECOND, with_settings(config, model={setting: (name,)}))


class KilledError(Exception):
    pass


def test_a_fine_tune_killed_in_the_middle_goes_on_and_ends_with_the_same_bits(two_days):
    config, _ = two_days
    config = with_settings(config, model={}, training={"seed": 5, "checkpoint_steps": 1, "batch_size": 8})
    seen = []

    def kill(done, total):
        seen.append(done)
        if len(seen) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        fine_tune(SECOND, config, progress=kill)
    assert len(list((config.home / "work").rglob(f"{SECOND}-*.safetensors"))) == 1
    registry, models = connect(config), []
    rest = []
    for force in (False, True):
        result = fine_tune(SECOND, config, force=force, progress=lambda done, total: rest.append(done))
        run = registry.client.get_run(result["run_id"])
        model_id = run.data.tags[LOGGED_MODEL_TAG]
        folder = registry.client.get_logged_model(model_id).artifact_location.removeprefix("file://")
        models.append((Path(folder) / "artifacts" / "model.safetensors").read_bytes())
    left = config.home / "work" / "fine_tune" / f"{SECOND}-left.safetensors"  # as of a kill after the run was logged
    left.write_bytes(b"")
    fine_tune(SECOND, config)
    assert not left.exists()
    assert rest[0] > seen[1]  # what was done before the kill was not done again
    assert models[0] == models[1]
    assert not list((config.home / "work").rglob("*.safetensors"))


def test_a_refit_from_scratch_over_two_days_ignores_the_parents_weights_but_is_judged_by_it(home, log):
    as_they_come = {"min_calibration": 0.01, "max_calibration": 100.0}  # a model of a few dozen rows is not calibrated
    scratch = {"start_from": "scratch", "window_days": 2}
    config = with_settings(home, model={"head": "deepfm"}, training=scratch)
    config = replace(config, gate=replace(config.gate, **as_they_come))
    for day in (FIRST, SECOND):
        log.ordinary_day(day)
    outcomes = list(run_backfill(FIRST, SECOND, config))
    assert [(o.state, o.message) for o in outcomes] == [("done", "")] * 2
    rows = [o.results["fine_tune"]["rows"] for o in outcomes]
    assert rows[1] > 1.5 * rows[0]
    _, spec = load_model(local_model_folder(connect(config), 2))
    assert spec.trained_steps == -(-rows[1] // 32)  # none of the parent's
    assert {v.version: v.parent_version for v in versions(connect(config))} == {1: None, 2: 1}
