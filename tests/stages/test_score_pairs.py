"""What is told of a file of pairs, and pairs that there is no model to score with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
import torch
from forty_texts import EMBEDDINGS, TEXTS
from predicted_days import accept, write_rows

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import Config, EncoderConfig, ModelConfig, RegistryConfig
from bahe_tasks.core.score import item_embeddings, user_embeddings
from bahe_tasks.core.training_rows import Histories, ImpressionRows
from bahe_tasks.stages import score_pairs
from bahe_tasks.stages.model_of_day import model_to_train
from bahe_tasks.stages.score_pairs import NothingToScoreWithError, score_file
from bahe_tasks.stores.model_registry import connect
from bahe_tasks.stores.promotion_rules import ModelVersion
from benchmarks.model_matrix import save_checkpoint

DAY, CPU = date(2024, 3, 1), torch.device("cpu")


def test_without_a_champion_the_lineages_that_have_one_are_named(tmp_path):
    config = Config(home=tmp_path, registry=RegistryConfig(model_name="of_today"))
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nu,i\n")

    def refused() -> str:
        with pytest.raises(NothingToScoreWithError) as error:
            score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", config)
        return str(error.value)

    alone = "registered model of_today has no champion; run a day first: `bahe run-day DAY`"
    assert refused() == alone
    for name, alias in (("before", "champion"), ("of_old", "champion"), ("never_passed", "challenger")):
        client = connect(replace(config, registry=RegistryConfig(model_name=name))).client
        client.create_registered_model(name)
        client.create_model_version(name, source=str(tmp_path))
        client.set_registered_model_alias(name, alias, "1")
    assert refused() == f"{alone}, or set registry.model_name to one that has: before, of_old"


@pytest.fixture(params=["mlp", "din"])
def published(tmp_path, monkeypatch, request) -> Config:
    """A home with a champion of one text feature, `bills`: users "reads" and "shown", who did nothing; item "i"."""
    save_checkpoint("bert", TEXTS, tmp_path / "bert")
    encoder = EncoderConfig(checkpoint=str(tmp_path / "bert"), num_shallow_layers=1)
    settings = ModelConfig(head=request.param, hash_buckets=64, text_topics=0)
    config = Config(home=tmp_path, encoder=encoder, model=settings)
    one = np.zeros(1, np.int64)
    rows = ImpressionRows(
        **dict.fromkeys(("impression_ids", "user_ids", "item_ids"), np.array(["x"], object)),
        **dict.fromkeys(("shown_at", "as_of", "title_rows"), one),
        labels=np.zeros(1, np.float32),
        histories={"bills": Histories(one, one, one, one + 1)},
        cat={},
        num={},
    )
    how = {"texts_at": lambda _: [], "encoder_version": "enc-1", "seed": 1}
    model, spec = model_to_train(rows, EMBEDDINGS, config, None, **how)
    if spec.model.user_is_cacheable:
        histories = {"bills": Histories(one, one, np.array([0, 1]), np.array([1, 1]))}
        vectors = user_embeddings(model, histories, np.full(2, 1), EMBEDDINGS, batch_size=2, device=CPU)
        users = [
            {"model_version": 1, "user_id": user, "embedding": vector.astype("<f4").tobytes()}
            for user, vector in zip(("reads", "shown"), vectors, strict=True)
        ]
        write_rows(config, "user_embeddings", users, partition="model_version")
    [vector] = item_embeddings(model, one, EMBEDDINGS, batch_size=1, device=CPU)
    item = {"model_version": 1, "item_id": "i", "embedding": vector.astype("<f4").tobytes(), "cat": [], "num": []}
    write_rows(config, "item_embeddings", [item], partition="model_version")
    at = datetime(2024, 3, 1, 8, tzinfo=UTC)
    title = {"dt": DAY, "item_id": "i", "updated_at": at, "title_key": behavior_key(TEXTS[0]), "title": TEXTS[0]}
    write_rows(config, "items", [{**title, "cat": [], "num": []}])
    events = [("reads", "bills"), ("does_other_things", "searches")]
    done = {"dt": DAY, "occurred_at": at, "behavior_key": behavior_key(TEXTS[1]), "text": TEXTS[1]}
    write_rows(config, "behavior_events", [{**done, "user_id": user, "feature": feature} for user, feature in events])
    accept(config, DAY)
    champion = ModelVersion(1, DAY, "f", run_id="r", encoder_version="enc-1")
    for name, found in (
        ("current_champion", champion),
        ("published_record", champion),
        ("local_model_folder", tmp_path),
        ("load_model", (model, spec)),
        ("check_encoder", None),
    ):
        monkeypatch.setattr(score_pairs, name, lambda *_, found=found, **__: found)
    return config


def test_users_without_a_behavior_that_the_model_reads_and_items_not_published_are_counted_alike_for_each_head(
    published, tmp_path
):
    users, items = ("reads", "shown", "does_other_things", "nobody"), ("i", "of_the_file", "nothing")
    pairs = pd.DataFrame([(user, item) for user in users for item in items], columns=["user_id", "item_id"])
    pairs["title"] = [None, "a title of the file", None] * len(users)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    counts = score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", published)
    assert (counts["users_without_history"], counts["items_not_published"]) == (3, 2)


def test_embeddings_that_are_replaced_while_pairs_are_scored_give_no_file(published, tmp_path, monkeypatch):
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nreads,i\n")
    records = ["before", "after"]
    monkeypatch.setattr(score_pairs, "published_record", lambda *_: records.pop(0))
    with pytest.raises(NothingToScoreWithError, match="version 1 were replaced meanwhile: score again"):
        score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", published)
    assert not (tmp_path / "out.csv").exists()
