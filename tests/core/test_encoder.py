import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForMaskedLM

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.llm_split import CheckpointWeightsError, LlmSplit, UnsplittableArchitectureError
from bahe_tasks.core.text_encoder import EmbeddingOverflowError, batch_sizes
from bahe_tasks.core.tokens import TokenizerNotFoundError
from benchmarks.kit.tiny_llms import TINY_LLMS, tiny_llm

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
            hidden = llm(**inputs, output_hidden_states=True).hidden_states[EncoderConfig().num_shallow_layers]
        np.testing.assert_allclose(embedding, hidden[0].mean(0), atol=2e-3)  # float16 keeps 11 bits


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
    monkeypatch.setattr("bahe_tasks.core.text_encoder.pool", lambda hidden, mask, pooling: hidden.sum(1) + 1e6)
    with pytest.raises(EmbeddingOverflowError, match="Ghostbusters"):
        encode_texts(["Ghostbusters"], checkpoint_dir=CHECKPOINT, encoder=EncoderConfig(device="cpu"))


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([1, 2, 3, 3], [4]),  # four rows of three tokens are 12 of 20
        ([1, 2, 2, 6, 6], [3, 2]),  # four rows of six are 24, but already three of two are a quarter of 20
        ([1, 1, 5, 5, 5], [4, 1]),  # two rows of one are less than a quarter; five rows of five are 25
        ([4, 4, 4, 4, 4, 4], [5, 1]),
        ([20], [1]),
        ([40, 100], [1, 1]),  # none fits: each alone
        ([5, 5], [2]),
        ([], []),
    ],
)
def test_a_batch_holds_what_fits_the_budget_and_ends_at_longer_texts_once_a_quarter_full(lengths, sizes):
    assert batch_sizes(lengths, tokens_per_batch=20) == sizes


@pytest.fixture(params=[2, 3])
def more_threads(request):
    """As many of torch's threads, where tests of core have one."""
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def test_bits_do_not_depend_on_the_number_of_threads(more_threads, monkeypatch):
    monkeypatch.setattr("bahe_tasks.core.packed_linear.can_pack", lambda weight: False)  # as packed they never did
    encode = partial(
        encode_texts,
        [f"{'word ' * (n % 7)}{n}" for n in range(400)],
        checkpoint_dir=CHECKPOINT,
        encoder=EncoderConfig(device="cpu", num_shallow_layers=2),
    )
    found = encode()
    torch.set_num_threads(1)
    np.testing.assert_array_equal(found, encode())


@pytest.fixture
def folder_of(tmp_path):
    """(family, whether the packaged BERT vocabulary lies beside the weights) → folder of a tiny random checkpoint."""

    def save(family: str, *, tokenizer: bool = True) -> Path:
        llm = tiny_llm("bert", vocab_size=30522) if family == "bert" else TINY_LLMS[family]()
        llm.save_pretrained(tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            if tokenizer:
                shutil.copy(CHECKPOINT / name, tmp_path / name)
        return tmp_path

    return save


def _encode(folder: Path) -> np.ndarray:
    encoder = EncoderConfig(device="cpu", num_shallow_layers=1)
    return encode_texts(["Ghostbusters (1984)"], checkpoint_dir=folder, encoder=encoder)


def test_a_local_folder_of_another_llm_is_encoded_with(folder_of):
    assert np.isfinite(_encode(folder_of("bert"))).all()


# Without files transformers makes of BERT's and its like a tokenizer that knows five tokens, and raises for others.
@pytest.mark.parametrize(
    "family", ["bert", "roberta", "camembert", "gpt2", "qwen3", "gemma", "llama", "mpnet", "modernbert"]
)
def test_a_folder_without_a_tokenizer_is_refused_by_its_path(folder_of, family):
    folder = folder_of(family, tokenizer=False)
    with pytest.raises(TokenizerNotFoundError, match=f"{folder}.*copy or download"):
        _encode(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenizer.json", ""), ("tokenizer.json", "{broken"), ("tokenizer.json", "{}"), ("tokenizer_config.json", "{")],
)
def test_a_broken_tokenizer_is_refused_by_its_path(folder_of, name, content):
    folder = folder_of("bert")
    (folder / name).write_text(content)
    with pytest.raises(TokenizerNotFoundError, match=f"{folder}.*copy or download"):
        _encode(folder)


def test_a_vocabulary_of_no_word_is_refused(folder_of):
    folder = folder_of("bert", tokenizer=False)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(TokenizerNotFoundError, match="knows no word"):
        _encode(folder)


def test_a_tokenizer_with_more_tokens_than_the_llm_knows_is_refused(folder_of):
    folder = folder_of("distilbert")  # of 60 tokens
    with pytest.raises(TokenizerNotFoundError, match=r"up to 30521, but .* has 60 rows"):
        _encode(folder)


def test_a_token_added_beyond_the_embedding_is_refused_only_in_a_text(folder_of):
    folder = folder_of("bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<price>"])
    tokenizer.save_pretrained(folder)
    assert np.isfinite(_encode(folder)).all()
    with pytest.raises(TokenizerNotFoundError, match=r"up to 30522, but .* has 30522 rows"):
        encode_texts(["<price>"], checkpoint_dir=folder, encoder=EncoderConfig(device="cpu", num_shallow_layers=1))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "of another architecture", "of another width"])
def test_weights_that_are_not_those_of_the_checkpoint_are_refused_by_its_path(folder_of, tmp_path, damage):
    folder = folder_of("bert")
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage in ("empty", "cut off"):
        weights.write_bytes(weights.read_bytes()[: 0 if damage == "empty" else 10_000])
    else:
        other = TINY_LLMS["llama"]() if damage == "of another architecture" else tiny_llm("bert", hidden_size=16)
        other.save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "model.safetensors", weights)
    with pytest.raises(CheckpointWeightsError, match=f"{folder}.*copy or download"):
        _encode(folder)


def test_weights_saved_with_a_language_model_head_or_without_a_pooler_will_do(folder_of):
    folder = folder_of("bert")
    BertForMaskedLM(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    assert np.isfinite(_encode(folder)).all()


@pytest.mark.parametrize("content", [json.dumps({"model_type": "not-yet-invented"}), "{}", "{broken"])
def test_an_architecture_transformers_does_not_know_is_refused(folder_of, content):
    folder = folder_of("bert")
    (folder / "config.json").write_text(content)
    with pytest.raises(UnsplittableArchitectureError, match=f"{folder}/config.json is of no architecture"):
        LlmSplit.load(folder, 1)
