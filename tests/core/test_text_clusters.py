"""Clusters of vectors, and the linear map that reads them off other vectors of the same texts."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from bahe_tasks.core.text_clusters import linear_discriminants, spherical_k_means, temperature_for, units


def test_clusters_of_directions_far_apart_are_those_directions():
    generator = np.random.default_rng(0)
    about = generator.integers(0, 5, 300)
    vectors = units(np.eye(12, dtype=np.float32)[about] + 0.1 * generator.normal(size=(300, 12)).astype(np.float32))
    found = spherical_k_means(vectors, 12, np.random.default_rng(1))
    assert all(len(set(about[found == cluster])) <= 1 for cluster in range(12))


def test_fewer_vectors_than_clusters_have_one_each():
    found = spherical_k_means(np.eye(3, 8, dtype=np.float32), 6, np.random.default_rng(1))
    assert len(set(found.tolist())) == 3


def test_the_discriminants_are_log_odds_of_normal_distributions_with_one_covariance():
    generator = np.random.default_rng(0)
    clusters = np.repeat([0, 1, 3], [50, 30, 20])
    vectors = (
        generator.normal(size=(100, 4)) @ generator.normal(size=(4, 4)) + 3 * generator.normal(size=(4, 4))[clusters]
    )
    weight, bias = linear_discriminants(vectors, clusters, 4)
    means = [vectors[clusters == n].mean(0) if n != 2 else vectors.mean(0) for n in range(4)]
    within = sum(np.outer(v - means[c], v - means[c]) for v, c in zip(vectors, clusters, strict=True))
    covariance = (
        within + 8 * np.trace(np.cov(vectors.T, bias=True)) / 4 * np.eye(4)
    ) / 108  # two vectors a direction beside the 100
    density = np.stack([multivariate_normal(mean, covariance).logpdf(vectors) for mean in means], axis=1)
    expected = softmax(density + np.log([0.5, 0.3, 0.005, 0.2]), axis=1)
    assert softmax(vectors @ weight.T + bias, axis=1) == pytest.approx(expected, abs=1e-9)


def test_fewer_vectors_than_directions_have_discriminants_all_the_same():
    weight, bias = linear_discriminants(np.eye(3, 8), np.arange(3), 5)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()
    assert (np.eye(3, 8) @ weight.T + bias).argmax(1).tolist() == [0, 1, 2]


def test_units_have_length_one_and_zero_stays():
    assert units(np.array([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(np.array([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_the_temperature_gives_the_largest_share_asked_for_whatever_the_scale(scale):
    log_odds = scale * np.random.default_rng(0).normal(size=(200, 6))
    for asked in (0.3, 0.6, 0.9):
        found = temperature_for(log_odds, mean_largest=asked)
        assert softmax(log_odds / found, axis=1).max(1).mean() == pytest.approx(asked, abs=1e-6)


def test_where_the_largest_are_two_the_log_odds_stay_small():
    tied = np.repeat(np.eye(3), 2, axis=1)  # the two clusters of each row cannot be told apart
    found = temperature_for(tied, mean_largest=0.9)
    assert (tied.max(1) - tied.mean(1)) / found == pytest.approx(30)


def test_log_odds_that_are_all_alike_stay_as_they_are():
    assert temperature_for(np.zeros((5, 4)), mean_largest=0.9) == 1
