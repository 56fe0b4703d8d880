"""Which texts the topics of a first model start from, and what the whole LLM is asked of them."""

import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.text_encoder import EmbeddingOverflowError
from bahe_tasks.core.text_topics import TextTopics
from bahe_tasks.stages import topics_start
from bahe_tasks.stages.topics_start import start_topics
from benchmarks.model_matrix import save_checkpoint

WIDTH = 32
TEXTS = [f"{thing} {place}" for thing in ("bread", "cake", "train", "bus", "rent") for place in "abcdefgh"]
EMBEDDINGS = np.random.default_rng(0).normal(size=(len(TEXTS), WIDTH)).astype(np.float16)


@pytest.fixture
def encoder(tmp_path):
    save_checkpoint("bert", TEXTS, tmp_path / "bert")
    return EncoderConfig(checkpoint=str(tmp_path / "bert"), num_shallow_layers=1, device="cpu")


@pytest.fixture
def encoded(monkeypatch):
    """What was encoded: (texts, number of layers) of each call."""
    calls = []
    encode = topics_start.encode_texts

    def noting(texts, *, checkpoint_dir, encoder):
        calls.append((list(texts), encoder.num_shallow_layers))
        return encode(texts, checkpoint_dir=checkpoint_dir, encoder=encoder)

    monkeypatch.setattr(topics_start, "encode_texts", noting)
    return calls


def started(read, encoder, *, embeddings=EMBEDDINGS):
    torch.manual_seed(0)
    topics = TextTopics(WIDTH, 4)
    start_topics(topics, read, embeddings, lambda numbers: [TEXTS[n] for n in numbers], encoder, seed=1)
    return topics.map.weight


def test_all_layers_are_asked_of_the_texts_that_are_read_and_of_no_other(encoder, encoded):
    read = np.arange(0, 40, 3)
    weight = started(read, encoder)
    assert encoded == [([TEXTS[n] for n in read], 3)]
    unread = np.where(np.isin(np.arange(40), read)[:, None], EMBEDDINGS, 0)
    assert torch.equal(started(read, encoder, embeddings=unread), weight)


def test_of_many_texts_some_are_drawn(encoder, encoded, monkeypatch):
    monkeypatch.setattr(topics_start, "_MOST_TEXTS", 7)
    started(np.arange(40), encoder)
    ((texts, _),) = encoded
    assert len(set(texts)) == 7
    assert texts == sorted(texts, key=TEXTS.index)


def test_without_deep_layers_the_embeddings_are_what_the_whole_llm_says(encoder, encoded):
    without = started(np.arange(40), dataclasses.replace(encoder, num_shallow_layers=3))
    assert encoded == []
    assert not torch.equal(without, started(np.arange(40), encoder))


def test_no_text_leaves_the_start_as_it_is(encoder, encoded):
    found = started(np.zeros(0, np.int64), encoder)
    torch.manual_seed(0)
    assert torch.equal(found, TextTopics(WIDTH, 4).map.weight)
    assert encoded == []


def test_vectors_too_large_to_be_held_leave_clusters_of_the_embeddings_and_are_told_of(encoder, monkeypatch, caplog):
    def overflow(*_, **__):
        raise EmbeddingOverflowError("a text has an embedding that float16 cannot hold")

    monkeypatch.setattr(topics_start, "encode_texts", overflow)
    found = started(np.arange(40), encoder)
    assert "float16 cannot hold" in caplog.text
    assert torch.equal(found, started(np.arange(40), dataclasses.replace(encoder, num_shallow_layers=3)))
