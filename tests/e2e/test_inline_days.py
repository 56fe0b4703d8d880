"""Three ordinary days, run once for the module and then looked at from all sides."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FIRST, Log, at, published_alone, small_config
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.engines.inline import run_backfill, run_day
from bahe_tasks.schemas import TABLES
from bahe_tasks.stages.histories_as_of import newest_items
from bahe_tasks.stages.pair_file import ScoreFileError
from bahe_tasks.stages.pair_sums import published_pair_sums
from bahe_tasks.stages.publish_embeddings import publish_embeddings
from bahe_tasks.stages.read_metrics import read_metrics
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stages.roll_back import roll_back
from bahe_tasks.stages.score_pairs import score_file
from bahe_tasks.stores.delta_tables import data_files, read_table, table_version
from bahe_tasks.stores.expectations import data_docs_page
from bahe_tasks.stores.model_registry import champion, connect, local_model_folder, version_of, versions

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
LAST = FIRST + timedelta(days=2)


@pytest.fixture(scope="module")
def days(tmp_path_factory, spark):
    """The home after a backfill of three days, with the outcomes."""
    config = small_config(tmp_path_factory.mktemp("home"))
    log = Log(config.landing_dir)
    for n in range(3):
        log.ordinary_day(FIRST + timedelta(days=n))
    log.land(
        "behavior_events",
        FIRST,
        ['{"user_id": "u1", "feat', {"user_id": "", "feature": "bills", "occurred_at": at(FIRST, 1), "text": "x"}],
        name="broken.jsonl",
    )
    return config, list(run_backfill(FIRST, LAST, config))


def contents(config):
    """Every row of every table as sorted text, and the metrics."""
    rows = {name: sorted(map(str, read_table(config.tables_dir, name).to_pylist())) for name in TABLES}
    return rows, read_metrics(config)


def test_every_day_is_done_and_the_last_one_is_champion(days):
    config, outcomes = days
    assert [(o.state, o.message) for o in outcomes] == [("done", "")] * 3
    assert read_status(config)["champion"] == {"version": 3, "day": str(LAST), "in_force": True}
    assert [day["gate"] for day in read_status(config)["days"]] == ["passed"] * 3


def test_the_gates_of_every_day_have_pages(days):
    config, _ = days
    index = data_docs_page(config.home / "gx", FIRST)
    assert {page.parent.parent.name for page in index.parent.rglob("*/*/*/*/*.html")} == {
        f"{FIRST + timedelta(days=n)}-{stage}" for n in range(3) for stage in ("validate_inputs", "validate_challenger")
    }
    assert str(LAST) in index.read_text(encoding="utf-8")


def test_every_landed_row_is_in_a_table_a_duplicate_or_in_quarantine(days):
    config, _ = days
    for day in read_status(config)["days"]:
        assert day["landed_rows"] == day["table_rows"] + day["duplicate_rows"] + day["quarantined_rows"]
    first = read_status(config)["days"][0]
    # 9 items, 24 users with 4 events and 3 impressions each, 2 broken rows
    assert (first["landed_rows"], first["quarantined_rows"]) == (9 + 24 * 4 + 24 * 3 + 2, 2)


def test_only_new_behaviors_are_encoded_and_each_exactly_once(days):
    config, outcomes = days
    # 9 titles, 9 behaviors, 3 visits: all on the first day
    assert [o.results["encode_behaviors"]["new_behaviors"] for o in outcomes] == [21, 0, 0]
    assert outcomes[1].results["encode_behaviors"]["reuse_rate"] == 1.0
    keys = read_table(config.tables_dir, "behavior_embeddings")["behavior_key"].to_pylist()
    assert len(keys) == len(set(keys)) == 21


def test_the_first_day_has_no_progressive_predictions_and_each_later_one_is_scored_by_the_day_before(days):
    config, _ = days
    found = read_metrics(config)["days"]
    assert [(day["day"], day["rows"], day["model_version"]) for day in found] == [
        (str(FIRST + timedelta(days=1)), 72, 1),
        (str(LAST), 72, 2),
    ]


def test_each_version_names_its_parent_and_can_be_rebuilt_from_its_tags(days):
    config, _ = days
    first, second, third = versions(connect(config))
    assert (first.parent_version, second.parent_version, third.parent_version) == (None, 1, 2)
    assert second.parent_fingerprint == first.fingerprint
    for tag in (
        "configuration",
        "seed",
        "code_revision",
        "table_version.impressions",
        "table_version.behavior_embeddings",
        "device",
        "processes",
    ):
        assert third.tags[tag]


def test_running_the_days_again_writes_nothing(days):
    config, before = days
    table_versions = {name: table_version(config.tables_dir, name) for name in TABLES}
    left = config.tables_dir / f"_settled-{FIRST}" / "impressions-kept-0.arrow"
    left.parent.mkdir()
    left.touch()  # of a run that was killed after its last commit
    again = list(run_backfill(FIRST, LAST, config))
    assert not left.parent.exists()
    assert {name: table_version(config.tables_dir, name) for name in TABLES} == table_versions
    assert len(versions(connect(config))) == 3
    for one, two in zip(before, again, strict=True):
        assert two.state == "done"
        assert {k: v for k, v in one.results.items() if k != "promote_champion"} == {
            k: v for k, v in two.results.items() if k != "promote_champion"
        } or two.results["publish_embeddings"]["state"] == "not_champion"


def test_a_second_home_with_the_same_log_gives_equal_bits(days, tmp_path):
    config, _ = days
    other = replace(small_config(tmp_path), landing=replace(config.landing, folder=str(config.landing_dir)))
    list(run_backfill(FIRST, FIRST + timedelta(days=1), other))
    for name in ("impressions", "running_sums", "user_sequences", "behavior_embeddings", "progressive_predictions"):
        ours = read_table(other.tables_dir, name).to_pylist()
        theirs = [row for row in read_table(config.tables_dir, name).to_pylist() if row["dt"] < LAST]
        assert sorted(map(str, ours)) == sorted(map(str, theirs))
    for version in (1, 2):
        files = [local_model_folder(connect(c), version) / "model.safetensors" for c in (config, other)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_scores_from_published_embeddings_know_unknown_users_and_items(days, tmp_path):
    config, _ = days
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id,title\nu0,i00,\nu0,i10,\nnobody,i00,\nu0,new,order noodles\nnobody,nothing,\n")
    counts = score_file(pairs, tmp_path / "out.csv", config)
    assert (counts["pairs"], counts["users_without_history"], counts["items_not_published"]) == (5, 1, 2)
    scored = pd.read_csv(tmp_path / "out.csv")["click_probability"]
    assert scored.between(0, 1).all()
    assert scored.nunique() == 5


def test_a_title_of_the_file_is_read_in_place_of_the_published_one(days, tmp_path):
    config, _ = days
    title = newest_items(["i00"], champion(connect(config)).day, config)["title"][0].as_py()
    pairs = tmp_path / "pairs.csv"
    scores = {}
    for given in ("", f"  {title} ", "a headline that nobody has read yet"):
        pairs.write_text(f"user_id,item_id,title\nu0,i00,{given}\nu0,i10,\n")
        assert score_file(pairs, tmp_path / "out.csv", config)["items_not_published"] == 0
        scores[given.strip()] = pd.read_csv(tmp_path / "out.csv")["click_probability"].to_numpy()
    as_published, the_same, another = scores[""], scores[title], scores["a headline that nobody has read yet"]
    np.testing.assert_array_equal(as_published, the_same)
    assert another[0] != as_published[0]
    assert another[1] == as_published[1]


def test_columns_of_pairs_that_no_model_reads_are_named_and_change_nothing(days, tmp_path):
    config, _ = days
    pairs = tmp_path / "pairs.csv"
    scores = []
    for others, values in (("", ""), (",cat_topics,num_rnk,Title,note", ",b,1,x,y")):
        pairs.write_text(f"user_id,item_id,cat_topic{others}\nu0,i00,a{values}\n")
        not_read = score_file(pairs, tmp_path / "out.csv", config)["columns_not_read"]
        scores.append(pd.read_csv(tmp_path / "out.csv"))
    assert not_read == ["cat_topics", "num_rnk", "Title"]
    assert list(scores[1]) == ["user_id", "item_id", "cat_topic", *not_read, "note", "click_probability"]
    assert scores[0]["click_probability"][0] == scores[1]["click_probability"][0]


def test_an_item_with_two_titles_is_refused_by_name(days, tmp_path):
    config, _ = days
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id,title\nu0,i00,one\nu0,i00,\nu0,i00,another\nu1,i00, one \n")
    with pytest.raises(ScoreFileError, match="item 'i00' has two titles, 'one' and 'another'"):
        score_file(pairs, tmp_path / "out.csv", config)


@pytest.mark.parametrize("is_published", ["users", "items", "nothing"])
def test_who_is_not_published_for_having_been_idle_is_scored_as_if_published(days, tmp_path, monkeypatch, is_published):
    config, _ = days
    pairs = tmp_path / "pairs.csv"
    ids = [(user, item) for user in ("u0", "u1", "u3", "nobody") for item in ("i00", "i10", "i11")]
    pd.DataFrame(ids, columns=["user_id", "item_id"]).to_csv(pairs, index=False)
    counts = score_file(pairs, tmp_path / "published.csv", config)
    assert (counts["users_without_history"], counts["items_not_published"]) == (1, 0)
    for module in ("score_pairs", "pair_sums"):
        monkeypatch.setattr(f"bahe_tasks.stages.{module}.read_table", published_alone(is_published))
    counts = score_file(pairs, tmp_path / "idle.csv", config)
    assert (counts["users_without_history"], counts["items_not_published"]) == (1, 0 if is_published == "items" else 3)
    before, after = (pd.read_csv(tmp_path / f"{name}.csv")["click_probability"] for name in ("published", "idle"))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert before.nunique() == len(ids)


def test_published_scores_equal_the_models_own(days, tmp_path):
    """A user without a behavior on the last day after its impressions: history as of the end of the day is the same."""
    import mlflow

    config, _ = days
    connect(config)
    table = read_table(config.tables_dir, "user_embeddings").to_pandas()
    items = read_table(config.tables_dir, "item_embeddings").to_pandas()
    user = np.frombuffer(table[(table.model_version == 3) & (table.user_id == "u0")].embedding.iloc[0], "<f4")
    item = items[(items.model_version == 3) & (items.item_id == "i00")].iloc[0]
    pairs = tmp_path / "one.jsonl"
    pairs.write_text('{"user_id": "u0", "item_id": "i00"}\n')
    score_file(pairs, tmp_path / "one.csv", config)
    frame = pd.DataFrame(
        {"user_embedding": [user.astype(float).tolist()], "item_embedding": [np.frombuffer(item.embedding, "<f4").astype(float).tolist()],
         "user_id": ["u0"], "item_id": ["i00"], "cat_topic": [dict(item["cat"])["topic"]], "num_rank": [dict(item["num"])["rank"]]}
    )  # fmt: skip
    version = champion(connect(config))
    titles = {"i00": newest_items(["i00"], version.day, config)["title"][0].as_py()}
    topics = {"topic": frame["cat_topic"].to_numpy(object)}
    frame["sums"] = list(published_pair_sums(frame, titles, topics, version, config))
    served = mlflow.pyfunc.load_model("models:/bahe_ctr@champion").predict(frame)
    expected = pd.read_csv(tmp_path / "one.csv")["click_probability"][0]
    assert np.asarray(served).ravel()[0] == pytest.approx(expected, abs=1e-6)


def test_the_verbs_that_read_print_one_json_document_and_write_the_report(days):
    home = str(days[0].home)
    printed = {}
    for verb in ("status", "metrics", "report"):
        answer = CliRunner().invoke(app, [verb, "--home", home, "--json"])
        assert answer.exit_code == 0, answer.output
        printed[verb] = json.loads(answer.stdout)
    assert [day["landed_rows"] for day in printed["status"]["days"]] == [179, 177, 177]
    assert printed["metrics"]["pooled"]["rows"] == 144
    page = Path(printed["report"]["report"]).read_text(encoding="utf-8")
    assert str(LAST) in page
    assert "expect_column_values_to_be_unique" in page


def test_compaction_changes_no_row_and_a_day_run_again_after_it_writes_nothing(days):
    config, _ = days
    before, files = contents(config), len(data_files(config.tables_dir, "atomic_behaviors"))
    tags = versions(connect(config))[0].tags
    pinned = {name: int(tags[f"table_version.{name}"]) for name in ("impressions", "behavior_embeddings")}
    read = {name: read_table(config.tables_dir, name, version=version) for name, version in pinned.items()}
    answer = CliRunner().invoke(app, ["compact", "--vacuum", "--home", str(config.home), "--json"])
    assert answer.exit_code == 0, answer.output
    done = json.loads(answer.stdout)
    assert done["kept_days"] == config.sequences.history_days
    assert done["tables"]["atomic_behaviors"] == {"files_before": files, "files_after": 1, "deleted_files": 0}
    assert contents(config) == before
    for name, version in pinned.items():
        assert read_table(config.tables_dir, name, version=version) == read[name]
    table_versions = {name: table_version(config.tables_dir, name) for name in TABLES}
    assert run_day(LAST, config).state == "done"
    assert {name: table_version(config.tables_dir, name) for name in TABLES} == table_versions


def test_zz_rollback_withdraws_later_versions_and_a_rerun_does_not_bring_them_back(days, monkeypatch):
    config, _ = days

    def killed(*_args, **_named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bahe_tasks.stages.roll_back.publish_embeddings", killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(config, to=None, reason="complaints")
    assert roll_back(config, to=None, reason="complaints")["champion_version"] == 2
    outcome = run_day(LAST, config)
    assert not outcome.results["promote_champion"]["promoted"]
    assert read_status(config)["champion"]["version"] == 2


def test_zzz_a_version_whose_embeddings_were_deleted_is_published_again(days):
    config, _ = days
    config = replace(config, publish=replace(config.publish, keep_versions=1))
    registry = connect(config)
    for version in (2, 1, 2):
        registry.client.set_registered_model_alias(registry.model_name, "champion", str(version))
        told = publish_embeddings(version_of(registry, version).day, config, version=version)
        assert told["state"] == "published"
        for name, rows in (("user_embeddings", told["users"]), ("item_embeddings", told["items"])):
            found = read_table(config.tables_dir, name)["model_version"].to_pylist()
            assert found == [version] * rows, name
        assert read_table(config.tables_dir, "published_sums")["model_version"].unique().to_pylist() == [version]
