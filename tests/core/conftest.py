"""Tiny random LLMs and rows that the tests of core share. Everything is seeded."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedModel

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import ModelConfig
from bahe_tasks.core import length_groups
from bahe_tasks.core.batches import Batch, collate
from bahe_tasks.core.columns import NumStatistics
from bahe_tasks.core.ctr_model import BaheCtrModel, new_model
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.score import score_pairs
from bahe_tasks.core.training_rows import Histories, ImpressionRows, row_columns
from benchmarks.kit.tiny_llms import tiny_llm as built_tiny_llm

WIDTH = 32
TINY = {
    "vocab_size": 60,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
DAY_US = 86400 * 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread(one_thread):
    """All tests of core."""


@pytest.fixture(autouse=True)
def _several_groups_a_batch(monkeypatch):
    """Tiny sequences of unlike lengths pass the deep layers apart, as long ones do."""
    monkeypatch.setitem(length_groups._POSITIONS_A_PASS, "cpu", 8)


@pytest.fixture
def tiny_llm() -> Callable[[str], PreTrainedModel]:
    def build(family: str) -> PreTrainedModel:
        torch.manual_seed(5)
        if family == "bert":
            return BertModel(BertConfig(**TINY)).eval()
        return LlamaModel(LlamaConfig(**TINY, num_key_value_heads=2)).eval()

    return build


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Path:
    """Return the folder of a tiny random BERT with MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    built_tiny_llm("bert", vocab_size=30522).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(checkpoint_dir("all-MiniLM-L6-v2") / name, folder / name)
    return folder


@pytest.fixture
def tiny_split(tiny_llm) -> Callable[..., LlmSplit]:
    return lambda family="bert", num_shallow_layers=1: LlmSplit.of(tiny_llm(family), num_shallow_layers)


@pytest.fixture
def tiny_spec(tiny_split) -> ModelSpec:
    """Two text features, one categorical and one numeric column, over one shallow and two deep BERT layers."""
    return ModelSpec(
        features=("bills", "visits"),
        cat_columns=("genre",),
        num_statistics={"price": NumStatistics(middle=10.0, spread=4.0)},
        encoder_version="enc-a",
        num_shallow_layers=1,
        llm_config=tiny_split().llm_config,
        model=ModelConfig(
            hidden_widths=(16, 8), hash_buckets=512, cat_width=4, recency_buckets=8, text_topics=4, text_id_width=3
        ),
    )


@pytest.fixture
def fresh(tiny_split, tiny_spec) -> Callable[[], BaheCtrModel]:
    """A model nothing has been trained on, always the same."""
    return lambda: new_model(tiny_spec, tiny_split().deep, seed=3)


@pytest.fixture
def with_model(tiny_spec) -> Callable[..., ModelSpec]:
    """(settings of the model) → the tiny spec with them."""
    return lambda **settings: dataclasses.replace(tiny_spec, model=dataclasses.replace(tiny_spec.model, **settings))


@pytest.fixture
def tiny_model(tiny_split, tiny_spec) -> BaheCtrModel:
    """A model whose zero-initialised parts are filled, so that a test sees every input matter."""
    return filled(new_model(tiny_spec, tiny_split().deep, seed=3))


def filled(model: BaheCtrModel) -> BaheCtrModel:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (not name.startswith("deep.") or ".lora_" in name) and not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
        for table in model.columns.tables.values():
            table.weight.normal_(0, 0.3, generator=generator)
            table.weight[0] = 0
    return model


@pytest.fixture
def fill() -> Callable[[BaheCtrModel], BaheCtrModel]:
    """(model) → the model, its zero-initialised parts filled."""
    return filled


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float16)


@pytest.fixture
def make_rows() -> Callable[..., ImpressionRows]:
    """(lengths of the histories by text feature, seed) → impressions."""
    return _rows


@pytest.fixture
def make_histories() -> Callable[..., Histories]:
    return _histories


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """(rows, embeddings, spec, index of the rows, all unless given) → batch."""

    def build(rows: ImpressionRows, embeddings: np.ndarray, spec: ModelSpec, index: list[int] | None = None) -> Batch:
        chosen = np.arange(len(rows)) if index is None else np.array(index)
        columns = row_columns(rows, spec)
        return collate(rows, embeddings, chosen, columns=columns, features=spec.features, device=torch.device("cpu"))

    return build


@pytest.fixture
def tiny_rows(make_rows) -> ImpressionRows:
    """Nine impressions: histories of 0 to 7 behaviors, one row with both empty, an unknown item, absent values."""
    lengths = {"bills": [0, 3, 7, 0, 1, 2, 5, 4, 6], "visits": [2, 0, 5, 0, 1, 1, 0, 7, 3]}
    return make_rows(lengths, seed=2)


def _rows(lengths: dict[str, list[int]], *, seed: int, num_embeddings: int = 40) -> ImpressionRows:
    rng = np.random.default_rng(seed)
    num_rows = len(next(iter(lengths.values())))
    shown_at = np.arange(num_rows, dtype=np.int64) * DAY_US // 10 + 400 * DAY_US
    title_rows = rng.integers(num_embeddings, size=num_rows)
    title_rows[num_rows // 2] = -1
    genre = np.array([None if r % 4 == 3 else f"genre{r % 3}" for r in range(num_rows)], object)
    price = np.where(np.arange(num_rows) % 3 == 1, np.nan, rng.normal(10, 4, num_rows))
    return ImpressionRows(
        impression_ids=np.array([f"i{r}" for r in range(num_rows)], object),
        user_ids=np.array([f"u{r % 5}" for r in range(num_rows)], object),
        item_ids=np.array([f"m{r % 7}" for r in range(num_rows)], object),
        shown_at=shown_at,
        as_of=shown_at,
        labels=rng.integers(2, size=num_rows).astype(np.float32),
        title_rows=title_rows,
        histories={
            name: _histories(length, rng=rng, num_embeddings=num_embeddings) for name, length in lengths.items()
        },
        cat={"genre": genre},
        num={"price": price},
    )


def _histories(lengths: list[int], *, rng: np.random.Generator, num_embeddings: int) -> Histories:
    total = sum(lengths)
    ends = np.cumsum(lengths)
    return Histories(
        behavior_rows=rng.integers(num_embeddings, size=total),
        occurred_at=rng.integers(0, 400, size=total) * DAY_US,
        starts=ends - np.array(lengths),
        ends=ends,
    )


@pytest.fixture
def scores_of_cached() -> Callable[..., np.ndarray]:
    """(model, user embeddings, item embeddings, rows, device) → scores of the rows' own pairs."""

    def pairs(
        model: BaheCtrModel, users: np.ndarray, items: np.ndarray, rows: ImpressionRows, device: torch.device
    ) -> np.ndarray:
        ids = {"user_ids": rows.user_ids, "item_ids": rows.item_ids}
        return score_pairs(model, users, items, **ids, cat=rows.cat, num=rows.num, batch_size=5, device=device)

    return pairs


@pytest.fixture
def log():
    """Labels, scores with many ties, users."""
    rng = np.random.default_rng(3)
    scores = np.round(rng.random(500), 2)
    return (
        (rng.random(500) < scores).astype(np.float32),
        scores,
        np.array([f"u{u}" for u in rng.integers(60, size=500)], object),
    )


@pytest.fixture
def without_dropout() -> Callable[[BaheCtrModel], BaheCtrModel]:
    """(model) → the model with every dropout off, also those of BERT's attention."""

    def switch_off(model: BaheCtrModel) -> BaheCtrModel:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        return model

    return switch_off


@pytest.fixture
def in_given_order(monkeypatch):
    """Rows are trained on in the order given, those of one user state at the place of the first."""
    monkeypatch.setattr("bahe_tasks.core.train.shuffled", lambda states, *, seed: np.argsort(states, kind="stable"))
