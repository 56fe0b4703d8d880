import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.encoder import EmbeddingOverflowError, encode_texts, token_budget_batches

CHECKPOINT = checkpoint_dir("all-MiniLM-L6-v2")
TEXTS = [
    "Gravity (2013) Drama Sci-Fi Thriller",
    "Fantômas - À l'ombre de la guillotine (1913) Crime Drama",
    "order takeout",
    "Ghostbusters (1984)",
    "a " * 100,
    "book hotel",
    "order takeout",
]


@pytest.fixture(scope="module")
def encoded() -> np.ndarray:
    return encode_texts(TEXTS, checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu", tokens_per_batch=64))


def test_embeddings_equal_a_plain_transformers_loop_over_single_texts(encoded):
    tokenizer, llm = AutoTokenizer.from_pretrained(CHECKPOINT), AutoModel.from_pretrained(CHECKPOINT).eval()
    for text, embedding in zip(TEXTS, encoded, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            after_layer_3 = llm(**inputs, output_hidden_states=True).hidden_states[3]
        np.testing.assert_allclose(embedding, after_layer_3[0].mean(0), atol=2e-3)  # float16 keeps 11 bits


def test_the_order_of_texts_changes_no_bit(encoded):
    order = np.random.default_rng(0).permutation(len(TEXTS))
    again = encode_texts(
        [TEXTS[i] for i in order], checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu", tokens_per_batch=64)
    )
    assert np.array_equal(again, encoded[order])


def test_result_is_float16_and_of_width_h_for_no_text_too(encoded):
    assert (encoded.dtype, encoded.shape) == (np.float16, (7, 384))
    none = encode_texts([], checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu"))
    assert (none.dtype, none.shape) == (np.float16, (0, 384))


def test_the_prompt_stands_around_the_text(encoded):
    prompted = encode_texts(
        ["Ghostbusters"], checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu", prompt="{text} (1984)")
    )
    np.testing.assert_allclose(prompted[0], encoded[3], atol=2e-3)


def test_bfloat16_embeddings_are_close_to_float32_ones(encoded):
    encoder = EncoderConfig(device="cpu", compute_dtype="bfloat16")
    rounded = encode_texts(TEXTS, checkpoint_dir=CHECKPOINT, encoder=encoder).astype(np.float32)
    full = encoded.astype(np.float32)
    cosine = (rounded * full).sum(1) / np.linalg.norm(rounded, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.999  # bfloat16 keeps 8 bits
    assert not np.array_equal(rounded, full)


def test_progress_ends_at_the_number_of_distinct_texts():
    calls = []
    encode_texts(
        TEXTS,
        checkpoint_dir=CHECKPOINT,
        encoder=EncoderConfig(device="cpu", tokens_per_batch=64),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (6, 6)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_number_float16_cannot_hold_is_an_error(monkeypatch):
    monkeypatch.setattr("bahe_tasks.core.encoder.pool", lambda hidden, mask, pooling: hidden.sum(1) + 1e6)
    with pytest.raises(EmbeddingOverflowError, match="Ghostbusters"):
        encode_texts(["Ghostbusters"], checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu"))


def test_batches_keep_the_token_budget_and_hold_every_text_once():
    lengths = [5, 40, 3, 3, 9, 2, 100, 7]
    batches = list(token_budget_batches(lengths, tokens_per_batch=20))
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert all(tokens <= 20 or len(batch) == 1 for tokens, batch in zip(padded, batches, strict=True))
    assert batches[0] == [5, 2, 3, 0]  # 2, 3, 3 and 5 tokens: four rows of five
