"""Which texts the topics of a first model start from, and what the whole LLM is asked of them."""

import numpy as np
import pytest
import torch
from forty_texts import EMBEDDINGS, TEXTS, WIDTH
from transformers import AutoModel, AutoTokenizer

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.text_encoder import EmbeddingOverflowError
from bahe_tasks.core.text_topics import TextTopics
from bahe_tasks.stages import topics_start as stage
from bahe_tasks.stages.topics_start import topics_start
from benchmarks.model_matrix import save_checkpoint


@pytest.fixture
def encoder(tmp_path):
    save_checkpoint("bert", TEXTS, tmp_path / "bert")
    return EncoderConfig(checkpoint=str(tmp_path / "bert"), num_shallow_layers=1, device="cpu")


def start_of(read, encoder, *, embeddings=EMBEDDINGS, seed=1):
    return topics_start(read, embeddings, lambda numbers: [TEXTS[n] for n in numbers], encoder, seed=seed)


def test_the_texts_are_those_that_are_read_and_what_the_whole_llm_makes_of_each(encoder):
    read = np.arange(0, 40, 3)
    start = start_of(read, encoder)
    assert np.array_equal(start.embeddings, EMBEDDINGS[read])
    llm = AutoModel.from_pretrained(encoder.checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder.checkpoint)
    for n, found in zip(read, start.whole, strict=True):
        with torch.no_grad():
            hidden = llm(**tokenizer(TEXTS[n], return_tensors="pt")).last_hidden_state
        assert found == pytest.approx(hidden[0].mean(0).numpy(), abs=2e-3)


def test_of_many_texts_some_are_drawn_by_the_seed(encoder, monkeypatch):
    monkeypatch.setattr(stage, "_MOST_TEXTS", 7)
    one, same, other = (start_of(np.arange(40), encoder, seed=seed).embeddings for seed in (1, 1, 2))
    rows = [np.flatnonzero((row == EMBEDDINGS).all(1)).item() for row in one]
    assert len(rows) == 7
    assert rows == sorted(set(rows))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_text_is_nothing_to_start_from(encoder):
    start = start_of(np.zeros(0, np.int64), encoder)
    assert start.embeddings.shape == start.whole.shape == (0, WIDTH)
    topics = TextTopics(WIDTH, 4)
    before = topics.map.weight.clone()
    topics.start_from(*start, seed=1)
    assert torch.equal(topics.map.weight, before)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(EmbeddingOverflowError("choose another layer"), "float16"), (torch.OutOfMemoryError("CUDA"), "out of memory")],
)
def test_a_whole_llm_that_cannot_be_asked_leaves_the_embeddings_and_is_told_of(
    encoder, monkeypatch, caplog, error, reason
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(stage, "encode_by_whole_llm", fail)
    start = start_of(np.arange(40), encoder)
    assert np.array_equal(start.whole, start.embeddings)
    assert reason in caplog.text
    assert "choose another" not in caplog.text
