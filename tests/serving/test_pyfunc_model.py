from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

from bahe_tasks.config import Config, ModelConfig
from bahe_tasks.core.columns import NumStatistics
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.model_files import save_model
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.score import score_pairs
from bahe_tasks.running_sums import IMPRESSION_SUMS
from bahe_tasks.stores.fine_tune_runs import log_fine_tune_run
from bahe_tasks.stores.model_promotion import promote, record_gate, register
from bahe_tasks.stores.model_registry import connect

WIDTH, NUM_TOPICS, DAY = 16, 4, date(2013, 9, 24)


@pytest.fixture(scope="module")
def model():
    """A tiny untrained model of one text feature, one categorical and one numeric column."""
    torch.manual_seed(1)
    shape = {"vocab_size": 40, "hidden_size": WIDTH, "intermediate_size": 32, "max_position_embeddings": 32}
    split = LlmSplit.of(BertModel(BertConfig(**shape, num_hidden_layers=2, num_attention_heads=2)), 1)
    spec = ModelSpec(
        features=("bills",),
        cat_columns=("genre",),
        num_statistics={"price": NumStatistics(middle=1.0, spread=2.0)},
        encoder_version="enc-1",
        num_shallow_layers=1,
        llm_config=split.llm_config,
        model=ModelConfig(hidden_widths=(8,), hash_buckets=64, cat_width=4, text_topics=NUM_TOPICS, text_id_width=2),
    )
    built = new_model(spec, split.deep, seed=3)
    with torch.no_grad():
        for parameter in [*built.head.parameters(), *built.columns.parameters()]:
            parameter.normal_(0, 0.3)
    return built


@pytest.fixture(scope="module")
def champion(model, tmp_path_factory):
    """The model as MLflow serves it: models:/bahe_ctr@champion."""
    import mlflow.pyfunc

    home = tmp_path_factory.mktemp("home")
    save_model(model, model.spec, home / "model")
    registry = connect(Config(home=home))
    run_id = log_fine_tune_run(
        registry,
        day=DAY,
        input_fingerprint="f1",
        params={},
        metrics={},
        curves={},
        tags={},
        model_dir=home / "model",
        cat_columns=model.spec.cat_columns,
        num_columns=model.spec.num_columns,
    )
    version = register(registry, run_id, day=DAY, input_fingerprint="f1", encoder_version="enc-1", parent=None, tags={})
    record_gate(registry, version, "passed")
    promote(registry, version)
    return mlflow.pyfunc.load_model("models:/bahe_ctr@champion")


@pytest.fixture
def pairs():
    rng = np.random.default_rng(5)
    vectors, shares = rng.normal(size=(2, 3, WIDTH), scale=0.3), rng.dirichlet(np.ones(NUM_TOPICS), (2, 3))
    user, item = np.concatenate([vectors, shares, rng.normal(size=(2, 3, 2))], -1).astype(np.float32)
    return {"user": np.concatenate([user, rng.uniform(-1, 1, (3, 1))], 1, dtype=np.float32), "item": item}


def test_the_champion_predicts_what_score_pairs_gives(champion, model, pairs):
    frame = pd.DataFrame(
        {
            "user_embedding": pairs["user"].tolist(),
            "item_embedding": pairs["item"].tolist(),
            "user_id": ["u1", None, "u3"],
            "item_id": ["i1", "i2", "i3"],
            "cat_genre": ["drama", None, "war"],
            "num_price": [1.0, np.nan, 4.0],
        }
    )
    expected = score_pairs(
        model,
        pairs["user"],
        pairs["item"],
        user_ids=np.array(["u1", None, "u3"], object),
        item_ids=np.array(["i1", "i2", "i3"], object),
        cat={"genre": np.array(["drama", None, "war"], object)},
        num={"price": np.array([1.0, np.nan, 4.0])},
        device=torch.device("cpu"),
    )
    found = champion.predict(frame)
    np.testing.assert_allclose(found["click_probability"], expected, rtol=1e-6)
    assert len(set(found["click_probability"])) == 3
    chosen = frame.iloc[[2, 0]]  # a prediction put beside its rows stands beside them
    pd.testing.assert_frame_equal(champion.predict(chosen), found.loc[[2, 0]], rtol=1e-6)


def test_ids_and_columns_may_be_left_out(champion, model, pairs):
    absent = np.full(3, None, object)
    expected = score_pairs(
        model,
        pairs["user"],
        pairs["item"],
        user_ids=absent,
        item_ids=absent,
        cat={"genre": absent},
        num={"price": np.full(3, np.nan)},
        device=torch.device("cpu"),
    )
    frame = pd.DataFrame({"user_embedding": pairs["user"].tolist(), "item_embedding": pairs["item"].tolist()})
    np.testing.assert_allclose(champion.predict(frame)["click_probability"], expected, rtol=1e-6)


def test_no_pairs_give_no_predictions(champion):
    frame = pd.DataFrame({"user_embedding": [], "item_embedding": []}, dtype=object)
    assert list(champion.predict(frame)["click_probability"]) == []


def test_an_empty_category_says_no_more_than_an_absent_one(champion, pairs):
    frame = pd.DataFrame({"user_embedding": pairs["user"].tolist(), "item_embedding": pairs["item"].tolist()})
    found = [champion.predict(frame.assign(cat_genre=genre))["click_probability"].tolist() for genre in ("", "war")]
    assert found[0] == champion.predict(frame)["click_probability"].tolist() != found[1]


def test_sums_of_another_length_are_refused(champion, pairs):
    frame = pd.DataFrame({"user_embedding": pairs["user"].tolist(), "item_embedding": pairs["item"].tolist()})
    with pytest.raises(ValueError, match="numbers a row, not 1"):
        champion.predict(frame.assign(sums=[[0.5]] * 3))


def test_sums_are_a_list_a_row_and_may_be_absent(champion, pairs):
    frame = pd.DataFrame({"user_embedding": pairs["user"].tolist(), "item_embedding": pairs["item"].tolist()})
    frame["sums"] = [[0.5, *[0.0] * (len(IMPRESSION_SUMS) - 1)], [None] * len(IMPRESSION_SUMS), None]
    assert champion.predict(frame)["click_probability"].between(0, 1).all()


def test_requests_at_once_get_what_each_gets_alone(model, tmp_path):
    """MLflow's server predicts on a thread a request; deep layers computed at one position know of one batch at a time."""
    from bahe_tasks.serving.pyfunc_model import ClickProbability

    beside = replace(model.spec.model, item_reading="beside", behavior_pooling="summary")
    split = LlmSplit.of(BertModel(BertConfig.from_dict(model.spec.llm_config)), 1)
    reads_item = new_model(replace(model.spec, model=beside), split.deep, seed=3)
    with torch.no_grad():
        for parameter in reads_item.head.parameters():
            parameter.normal_(0, 0.3)
    save_model(reads_item, reads_item.spec, tmp_path / "model")
    served = ClickProbability()
    served.load_context(SimpleNamespace(artifacts={"model_spec": tmp_path / "model" / "spec.json"}))
    rng = np.random.default_rng(0)

    def request(behaviors: int) -> pd.DataFrame:
        histories = [rng.normal(size=(rng.integers(1, behaviors + 1), WIDTH)).tolist() for _ in range(40)]
        titles = rng.normal(size=(40, WIDTH)).tolist()
        ages_s = [[60.0 * b for b in range(len(history))] for history in histories]
        return pd.DataFrame({"title_embedding": titles, "behaviors_bills": histories, "ages_s_bills": ages_s})

    def predict(frame: pd.DataFrame) -> np.ndarray:
        return served.predict(None, frame)["click_probability"].to_numpy()

    requests = [request(behaviors) for behaviors in (3, 5, 9, 12)] * 10
    alone = [predict(frame) for frame in requests]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(predict, requests))
    for found, expected in zip(at_once, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
