"""Soft topics of texts: shares, histories, how they meet, and what they start from."""

import numpy as np
import pytest
import torch

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
    topics.start_from(embeddings, np.arange(len(embeddings)), seed=3)
    shares = topics(torch.from_numpy(embeddings).float())
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    largest = shares.argmax(1).numpy()
    assert len({(a, t) for a, t in zip(about.tolist(), largest.tolist(), strict=True)}) == NUM_TOPICS
    assert shares.max(1).values.min() > 0.9


def test_shares_do_not_depend_on_the_length_of_an_embedding(topics):
    embeddings = torch.randn(5, WIDTH)
    torch.testing.assert_close(topics(embeddings), topics(7 * embeddings))


def test_the_start_is_a_function_of_texts_and_seed_and_reads_no_other_text(topics):
    embeddings, _ = clustered()
    read = np.arange(0, 200, 2)
    topics.start_from(embeddings, read, seed=3)
    first = topics.map.weight.clone()
    changed = embeddings.copy()
    changed[1::2] = 0
    topics.start_from(changed, read, seed=3)
    assert torch.equal(topics.map.weight, first)
    topics.start_from(embeddings, read, seed=4)
    assert not torch.equal(topics.map.weight, first)


@pytest.mark.parametrize("texts", [[], [5], [5] * 3, [5] * 1000], ids=["none", "one", "equal ones", "many equal ones"])
def test_texts_that_are_all_alike_leave_the_start_as_it_is(topics, texts):
    embeddings, _ = clustered()
    before = topics.map.weight.clone()
    topics.start_from(embeddings, np.array(texts, np.int64), seed=3)
    assert torch.equal(topics.map.weight, before)


def test_fewer_texts_than_topics_are_told_apart():
    embeddings, about = clustered()
    topics, chosen = TextTopics(WIDTH, 12), np.array([np.flatnonzero(about == t)[0] for t in range(3)])
    topics.start_from(embeddings, chosen, seed=3)
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
