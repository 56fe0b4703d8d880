"""Clusters of texts by what a whole LLM makes of them, told from what its shallow layers make of them.

Shallow layers of a sentence encoder tell the kind of a text (a title, a search, a bill) as clearly as what it is about, so clusters of their
vectors are kinds. What the whole LLM would say is in them all the same, and a linear map reads it off: linear discriminants
(Fisher, 1936), which weigh down the directions in which texts of one cluster differ, kinds among them.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 10
_SPHERICAL_VECTORS = 2
"""Vectors a direction that differ in all directions alike, by which the covariance within clusters is shrunk: few texts tell little of it."""
_SMALLEST_NORM = 1e-6
_FARTHEST, _FLATTEST, _HALVINGS = 30.0, 1e4, 50


def units(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (…, H) to length 1; a zero vector stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SMALLEST_NORM)


def spherical_k_means(vectors: np.ndarray, num_clusters: int, generator: np.random.Generator) -> np.ndarray:
    """Return the cluster of each of M unit vectors (M, H), int64 below `num_clusters`. With fewer vectors some are empty."""
    centres = units(generator.normal(size=(num_clusters, vectors.shape[1])).astype(np.float32))
    first = generator.permutation(len(vectors))[:num_clusters]
    centres[: len(first)] = vectors[first]
    for _ in range(_ROUNDS):
        nearest = (vectors @ centres.T).argmax(1)
        totals = np.zeros_like(centres)
        np.add.at(totals, nearest, vectors)
        filled = np.linalg.norm(totals, axis=1) > _SMALLEST_NORM
        centres[filled] = units(totals[filled])
    return (vectors @ centres.T).argmax(1)


def linear_discriminants(vectors: np.ndarray, clusters: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (M, H) and their clusters (M,) → weight (Z, H) and bias (Z,), float64: log-odds of each cluster, up to what is common to all.

    Those of normal distributions with one covariance, shrunk towards a sphere, and a mean for each cluster; an empty cluster has the mean of all and counts as half a vector.
    The vectors must not be all equal.
    """
    vectors = vectors.astype(np.float64)
    mean = vectors.mean(0)
    from_mean = vectors - mean
    counts = np.bincount(clusters, minlength=num_clusters)
    means = np.zeros((num_clusters, vectors.shape[1]))
    np.add.at(means, clusters, from_mean)
    means /= np.maximum(counts, 1)[:, None]
    within = from_mean - means[clusters]
    spherical = (from_mean**2).sum(1).mean() / vectors.shape[1]
    prior = _SPHERICAL_VECTORS * len(mean)
    covariance = (within.T @ within + prior * spherical * np.eye(len(mean))) / (len(vectors) + prior)
    weight = np.linalg.solve(covariance, means.T).T
    log_share = np.log(np.maximum(counts, 0.5) / len(vectors))
    return weight, log_share - (weight * means).sum(1) / 2 - weight @ mean


def temperature_for(log_odds: np.ndarray, *, mean_largest: float) -> float:
    """Return what log-odds (M, Z) are to be divided by so that the largest share of each row, softmaxes of them, is `mean_largest` on average.

    Where many rows have two largest, no temperature does: then the largest are `_FARTHEST` above the mean of their row on average. 1 where none differ.
    """
    below_largest = log_odds - log_odds.max(1, keepdims=True)
    spread = -float(below_largest.mean())
    if not spread:
        return 1.0
    low, high = spread / _FARTHEST, spread * _FLATTEST
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        largest = 1 / np.exp(below_largest / middle).sum(1)
        low, high = (middle, high) if largest.mean() > mean_largest else (low, middle)
    return high
