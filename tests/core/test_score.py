import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.core.batches import MissingEmbeddingError
from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.score import NonFiniteScoreError, item_embeddings, score, user_embeddings

CPU = torch.device("cpu")


def test_batch_composition_changes_nothing_beyond_rounding(tiny_model, tiny_rows, embeddings):
    whole = score(tiny_model, tiny_rows, embeddings, batch_size=100, device=CPU)
    assert (whole.dtype, whole.shape) == (np.float64, (9,))
    for batch_size in (1, 2, 4):
        np.testing.assert_allclose(
            score(tiny_model, tiny_rows, embeddings, batch_size=batch_size, device=CPU), whole, atol=1e-6
        )


def test_scores_from_cached_embeddings_equal_scores_of_impressions(tiny_model, tiny_rows, embeddings, scores_of_cached):
    users = user_embeddings(tiny_model, tiny_rows.histories, tiny_rows.shown_at, embeddings, batch_size=4, device=CPU)
    items = item_embeddings(tiny_model, tiny_rows.title_rows, embeddings, batch_size=4, device=CPU)
    assert (users.shape, items.shape) == ((9, 2 * (32 + 4 + 3 + 1)), (9, 32 + 4 + 3))
    paired = scores_of_cached(tiny_model, users, items, tiny_rows, CPU)
    np.testing.assert_allclose(paired, score(tiny_model, tiny_rows, embeddings, batch_size=3, device=CPU), atol=1e-6)


@pytest.mark.parametrize(("topics", "text_id"), [(0, 3), (4, 0), (0, 0)])
def test_without_topics_and_ids_of_texts_too(
    with_model, tiny_split, fill, tiny_rows, embeddings, scores_of_cached, topics, text_id
):
    model = fill(new_model(with_model(text_topics=topics, text_id_width=text_id), tiny_split().deep, seed=3))
    users = user_embeddings(model, tiny_rows.histories, tiny_rows.shown_at, embeddings, batch_size=4, device=CPU)
    items = item_embeddings(model, tiny_rows.title_rows, embeddings, batch_size=4, device=CPU)
    assert (users.shape, items.shape) == ((9, 2 * (32 + topics + text_id + 1)), (9, 32 + topics + text_id))
    paired = scores_of_cached(model, users, items, tiny_rows, CPU)
    np.testing.assert_allclose(paired, score(model, tiny_rows, embeddings, batch_size=3, device=CPU), atol=1e-6)


def test_a_user_embedding_is_as_of_the_time_given(tiny_model, tiny_rows, embeddings):
    now, later = (
        user_embeddings(tiny_model, tiny_rows.histories, as_of, embeddings, batch_size=9, device=CPU)
        for as_of in (tiny_rows.shown_at, tiny_rows.shown_at + 90 * 86400 * 1_000_000)
    )
    assert not np.allclose(now[2], later[2])


def test_a_model_left_as_it_trains_is_scored_without_dropout(tiny_model, tiny_rows, embeddings):
    expected = score(tiny_model, tiny_rows, embeddings, batch_size=9, device=CPU)
    for module in tiny_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    tiny_model.train()
    np.testing.assert_array_equal(score(tiny_model, tiny_rows, embeddings, batch_size=9, device=CPU), expected)
    assert not tiny_model.training


def test_zero_rows_have_zero_scores(tiny_model, tiny_rows, embeddings):
    nobody = np.empty(0, np.int64)
    assert item_embeddings(tiny_model, nobody, embeddings, batch_size=9, device=CPU).shape == (0, 32 + 4 + 3)
    assert user_embeddings(tiny_model, tiny_rows.histories, nobody, embeddings, batch_size=9, device=CPU).shape == (
        0,
        2 * (32 + 4 + 3 + 1),
    )


def test_a_score_that_is_not_a_number_is_an_error(tiny_model, tiny_rows, embeddings):
    with torch.no_grad():
        tiny_model.head.mlp.entry.bias[0] = float("nan")
    with pytest.raises(NonFiniteScoreError, match="9 of 9"):
        score(tiny_model, tiny_rows, embeddings, batch_size=9, device=CPU)


def test_a_behavior_or_title_without_embedding_is_an_error_never_a_zero_vector(tiny_model, tiny_rows, embeddings):
    too_few = embeddings[: tiny_rows.title_rows.max()]
    with pytest.raises(MissingEmbeddingError):
        score(tiny_model, tiny_rows, too_few, batch_size=9, device=CPU)
    bills = tiny_rows.histories["bills"]
    missing = dataclasses.replace(
        bills, behavior_rows=np.where(np.arange(len(bills.behavior_rows)) == 2, -1, bills.behavior_rows)
    )
    with pytest.raises(MissingEmbeddingError, match="behavior rows -1"):
        score(
            tiny_model,
            dataclasses.replace(tiny_rows, histories={"bills": missing}),
            embeddings,
            batch_size=9,
            device=CPU,
        )
