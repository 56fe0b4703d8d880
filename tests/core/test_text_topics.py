"""Soft topics of texts: shares, histories, how they meet, and what they start from."""

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from bahe_tasks.core.text_topics import TextTopics, met

WIDTH, NUM_TOPICS = 16, 4


def clustered(num_texts=200, seed=0):
    """Texts about four things far from each other, with a common part as embeddings have, and what each is about."""
    generator = np.random.default_rng(seed)
    about = generator.integers(0, NUM_TOPICS, num_texts)
    directions = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0]
    lengths = generator.uniform(2, 9, (num_texts, 1))
    noise = 0.1 * generator.normal(size=(num_texts, WIDTH))
    return (lengths * (directions[about] + directions[-1] + noise)).astype(np.float16), about


@pytest.fixture
def topics():
    torch.manual_seed(0)
    return TextTopics(WIDTH, NUM_TOPICS)


def test_texts_about_one_thing_begin_with_one_topic(topics):
    embeddings, about = clustered()
    topics.start_from(embeddings, embeddings, seed=3)
    shares = topics(torch.from_numpy(embeddings).float())
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    largest = shares.argmax(1).numpy()
    assert len({(a, t) for a, t in zip(about.tolist(), largest.tolist(), strict=True)}) == NUM_TOPICS
    assert shares.max(1).values.mean().item() == pytest.approx(0.9, abs=1e-3)


def test_what_the_whole_llm_tells_apart_is_read_off_embeddings_that_tell_the_kind_of_a_text_first(topics):
    whole, about = clustered(400)
    kind = np.random.default_rng(1).integers(0, 3, 400)
    kinds = np.random.default_rng(2).normal(size=(3, WIDTH))
    embeddings = (whole / np.linalg.norm(whole.astype(np.float32), axis=1, keepdims=True) + 2 * kinds[kind]).astype(
        np.float16
    )
    seen, new = slice(0, 200), slice(200, 400)

    def about_and_kind(clustered_by):
        topics.start_from(embeddings[seen], clustered_by[seen], seed=3)
        largest = topics(torch.from_numpy(embeddings[new]).float()).argmax(1).numpy()
        return [normalized_mutual_info_score(truth[new], largest) for truth in (about, kind)]

    by_whole, by_itself = about_and_kind(whole), about_and_kind(embeddings)
    assert by_whole[0] > 0.9
    assert by_whole[1] < 0.1
    assert by_itself[0] < by_whole[0]
    assert by_itself[1] > 0.5


def test_shares_do_not_depend_on_the_length_of_an_embedding(topics):
    embeddings = torch.randn(5, WIDTH)
    torch.testing.assert_close(topics(embeddings), topics(7 * embeddings))


def test_the_start_is_a_function_of_texts_and_seed(topics):
    embeddings, _ = clustered()
    topics.start_from(embeddings, embeddings, seed=3)
    first = topics.map.weight.clone()
    topics.start_from(embeddings, embeddings, seed=3)
    assert torch.equal(topics.map.weight, first)
    topics.start_from(embeddings, embeddings, seed=4)
    assert not torch.equal(topics.map.weight, first)


@pytest.mark.parametrize("texts", [[], [5], [5] * 3, [5] * 1000], ids=["none", "one", "equal ones", "many equal ones"])
def test_texts_that_are_all_alike_leave_the_start_as_it_is(topics, texts):
    embeddings, _ = clustered()
    alike = embeddings[np.array(texts, np.int64)]
    before = topics.map.weight.clone()
    for of_shallow, of_whole in ((alike, alike), (embeddings[: len(alike)], alike), (alike, embeddings[: len(alike)])):
        topics.start_from(of_shallow, of_whole, seed=3)
        assert torch.equal(topics.map.weight, before)


def test_fewer_texts_than_topics_are_told_apart():
    embeddings, about = clustered()
    topics, chosen = TextTopics(WIDTH, 12), np.array([np.flatnonzero(about == t)[0] for t in range(3)])
    topics.start_from(embeddings[chosen], embeddings[chosen], seed=3)
    shares = topics(torch.from_numpy(embeddings[chosen]).float())
    assert shares.isfinite().all()
    assert len(set(shares.argmax(1).tolist())) == 3


def test_a_history_has_the_mean_shares_of_its_behaviors_and_half_a_behavior_of_all_alike(topics):
    behaviors = torch.randn(2, 3, WIDTH)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = topics.of_histories(behaviors, mask)
    shares = topics(behaviors)
    torch.testing.assert_close(found[0], (shares[0].sum(0) + 0.5 / NUM_TOPICS) / 3.5)
    torch.testing.assert_close(found[1], (shares[1, 0] + 0.5 / NUM_TOPICS) / 1.5)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_how_they_meet_is_measured_against_equal_shares():
    title = torch.tensor([0.7, 0.1, 0.1, 0.1])
    same, other = title, title.flip(0)
    equal = torch.full((4,), 0.25)
    assert met(equal, title, 4).item() == pytest.approx(0, abs=1e-6)
    assert met(same, title, 4).item() == pytest.approx(np.log(4 * (0.49 + 0.03)) / 2, rel=1e-5)
    assert met(other, title, 4) < 0 < met(same, title, 4)
    embedding = torch.cat([torch.tensor([3.0, -5.0]), title])
    assert torch.equal(met(embedding, embedding, 4), met(title, title, 4))
    assert met(torch.zeros(4), title, 4).isfinite()
