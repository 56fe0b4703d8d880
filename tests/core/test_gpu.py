"""The GPU path against the CPU's: `pytest -m gpu tests/core/test_gpu.py` on a machine with torch and transformers."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from bahe_tasks.config import EncoderConfig, TrainingConfig
from bahe_tasks.core import encoder as encoder_module
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.score import item_embeddings, score, user_embeddings
from bahe_tasks.core.train import train
from bahe_tasks.core.train_processes import train_in_processes
from benchmarks.model_matrix import save_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TRAINING = TrainingConfig(batch_size=4, epochs=2, head_learning_rate=0.01, deep_learning_rate=1e-3)
TEXTS = [f"a title of {n} word{'s' * (n % 2)} " + "again " * (n % 13) for n in range(300)]


@pytest.fixture
def trained(tiny_split, with_model, tiny_rows, embeddings, without_dropout):
    """(device, family, settings of training and model) → the model, trained there, and its curve."""

    def build(device, family="bert", *, pooling="summary", tuning="full", rows=tiny_rows, **settings):
        split = tiny_split(family)
        spec = with_model(behavior_pooling=pooling, deep_tuning=tuning, dropout=0.0)
        spec = dataclasses.replace(spec, llm_config=split.llm_config)
        model = without_dropout(new_model(spec, split.deep, seed=3))
        training = dataclasses.replace(TRAINING, **settings)
        return model, train(model, rows, embeddings, training=training, seed=1, device=device)

    return build


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_embeddings_are_those_of_the_cpu(family, tmp_path):
    save_checkpoint(family, TEXTS, tmp_path)
    found = [
        encode_texts(TEXTS, checkpoint_dir=tmp_path, encoder=EncoderConfig(num_shallow_layers=1, device=device)).astype(
            np.float32
        )
        for device in ("cpu", "cuda")
    ]
    cosines = (found[0] * found[1]).sum(1) / np.prod([np.linalg.norm(part, axis=1) for part in found], axis=0)
    assert cosines.min() > 0.9999


def test_a_killed_encode_goes_on_from_its_chunks_with_equal_bits(tmp_path, monkeypatch):
    save_checkpoint("bert", TEXTS, tmp_path / "llm")
    monkeypatch.setattr(encoder_module, "chunks_of", lambda texts: [texts[:100], texts[100:200], texts[200:]])
    encode = partial(
        encode_texts,
        TEXTS,
        checkpoint_dir=tmp_path / "llm",
        encoder=EncoderConfig(num_shallow_layers=1, device="cuda"),
        chunk_dir=tmp_path / "chunks",
    )

    def killed(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(progress=killed)
    resumed = encode()
    assert np.array_equal(resumed, encode_texts(TEXTS, **{**encode.keywords, "chunk_dir": None}))


@pytest.mark.parametrize("pooling", ["summary", "mean"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_training_takes_the_steps_of_the_cpu(family, pooling, trained, tiny_rows, embeddings):
    on_cpu, on_gpu = (trained(device, family, pooling=pooling) for device in (CPU, GPU))
    assert on_gpu[1].losses == pytest.approx(on_cpu[1].losses, rel=1e-3)
    scores = [
        score(model, tiny_rows, embeddings, batch_size=4, device=device)
        for (model, _), device in ((on_cpu, CPU), (on_gpu, GPU))
    ]
    np.testing.assert_allclose(*scores, rtol=5e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"rows_a_pass": 1},
        {"positions_a_pass": 6},
        {"fused_optimizer": False},
        {"compile_layers": True},
    ],
    ids=str,
)
def test_what_saves_memory_or_time_changes_no_loss(settings, trained):
    plain, saving = trained(GPU)[1], trained(GPU, **settings)[1]
    assert saving.losses == pytest.approx(plain.losses, rel=1e-3)


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_bfloat16_products_train_nearly_the_same(tuning, trained):
    plain, fast = (trained(GPU, "llama", tuning=tuning, compute_dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    for name, weight in fast.state_dict().items():
        assert weight.dtype == plain.state_dict()[name].dtype
        torch.testing.assert_close(weight, plain.state_dict()[name], atol=0.05, rtol=0.1)


def test_scores_from_cached_embeddings_are_those_of_impressions(trained, tiny_rows, embeddings, scores_of_cached):
    model, _ = trained(GPU)
    users = user_embeddings(model, tiny_rows.histories, tiny_rows.as_of, embeddings, batch_size=4, device=GPU)
    items = item_embeddings(model, tiny_rows.title_rows, embeddings, batch_size=4, device=GPU)
    pairs = scores_of_cached(model, users, items, tiny_rows, GPU)
    np.testing.assert_allclose(pairs, score(model, tiny_rows, embeddings, batch_size=9, device=GPU), rtol=1e-4)


def test_out_of_memory_halves_the_pass_says_so_once_and_trains_the_same(make_rows, trained, caplog):
    rows = make_rows({"bills": [20] * 4096, "visits": [15] * 4096}, seed=2)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    plain = trained(GPU, rows=rows, batch_size=2048, epochs=1, deep_learning_rate=0.0)[1]
    peak, whole = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / whole)
    try:
        halved = trained(GPU, rows=rows, batch_size=2048, epochs=1, deep_learning_rate=0.0)[1]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert caplog.text.count("out of memory") == 1
    assert halved.losses == pytest.approx(plain.losses, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_two_gpus_give_the_model_of_one(trained, tiny_split, with_model, tiny_rows, embeddings, without_dropout):
    model = without_dropout(new_model(with_model(dropout=0.0), tiny_split().deep, seed=3))
    together = train_in_processes(
        model, tiny_rows, embeddings, num_processes=2, training=TRAINING, seed=1, device=GPU, optimizer_state=None
    )
    assert together.losses == pytest.approx(trained(GPU)[1].losses, rel=1e-3)
