"""What is learned of texts themselves: which row is a text's, histories, and that training reaches it."""

import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.text_ids import TextIdEmbeddings
from bahe_tasks.core.train import train

CPU = torch.device("cpu")


@pytest.fixture
def text_ids():
    made = TextIdEmbeddings(65536, 3)
    torch.nn.init.normal_(made.table.weight, generator=torch.Generator().manual_seed(1))
    return made


def stored(num_texts, width=384, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(num_texts, width)).astype(np.float16))


def test_a_text_has_one_row_wherever_its_embedding_goes(text_ids):
    embeddings = stored(50)
    rows = text_ids.rows(embeddings)
    padded = torch.cat([embeddings.float(), torch.zeros(50, 1)], 1)[:, :384]
    assert torch.equal(text_ids.rows(padded), rows)
    assert torch.equal(text_ids.rows(embeddings.float().view(5, 10, 384)).flatten(), rows)
    assert rows.tolist()[:3] == [37801, 37382, 50849]  # a version that is stored means these rows for ever


def test_texts_share_rows_as_often_as_chance_has_it(text_ids):
    rows = text_ids.rows(stored(20_000))
    expected = 65536 * (1 - (1 - 1 / 65536) ** 20_000)
    assert abs(len(rows.unique()) - expected) < 200
    assert 0 <= rows.min() <= rows.max() < 65536


def test_texts_that_differ_in_one_bit_of_one_number_have_other_rows(text_ids):
    embeddings = stored(32)
    changed = embeddings.clone()
    bits = changed.view(torch.int16)
    for n in range(32):
        bits[n, n] ^= 1
    assert (text_ids.rows(changed) != text_ids.rows(embeddings)).sum() >= 31


def test_narrow_embeddings_are_read_whole(text_ids):
    embeddings = stored(100, width=5)
    assert len(text_ids.rows(embeddings).unique()) > 95


def test_a_history_has_the_mean_of_its_behaviors_and_a_zero_one(text_ids):
    behaviors = stored(6).float().view(2, 3, 384)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    vectors = text_ids(behaviors)
    expected = torch.stack([vectors[0].sum(0) / 4, vectors[1, 0] / 2])
    torch.testing.assert_close(text_ids.of_histories(behaviors, mask), expected)


def test_vectors_of_texts_that_were_met_are_learned_and_no_others(tiny_split, tiny_spec, tiny_rows, embeddings):
    model = new_model(tiny_spec, tiny_split().deep, seed=3)
    assert not model.text_ids.table.weight.any()
    head = model.head.mlp.entry.blocks["text_id:bills"].weight.clone()
    training = TrainingConfig(batch_size=4, epochs=3)
    train(model, tiny_rows, embeddings, training=training, seed=1, device=CPU)
    met = np.unique(
        np.concatenate(
            [tiny_rows.title_rows[tiny_rows.title_rows >= 0], *(h.behavior_rows for h in tiny_rows.histories.values())]
        )
    )
    rows = model.text_ids.rows(torch.from_numpy(embeddings[met])).unique()
    learned = model.text_ids.table.weight.detach().any(1).nonzero().squeeze(1)
    assert set(learned.tolist()) <= set(rows.tolist())
    assert len(learned) > len(rows) * 0.8
    assert not torch.equal(model.head.mlp.entry.blocks["text_id:bills"].weight, head)


def test_without_a_width_there_is_none(tiny_split, tiny_spec):
    without = dataclasses.replace(tiny_spec, model=dataclasses.replace(tiny_spec.model, text_id_width=0))
    model = new_model(without, tiny_split().deep, seed=3)
    assert model.text_ids is None
    assert model.parts.of_item == 32 + 4
    assert not any("text_id" in name for name in model.state_dict())
