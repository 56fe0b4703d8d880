"""Rows with a known click probability, whose users differ: the ground on which intervals are judged."""

import numpy as np


def simulated(rng, *, num_users=120, rows_per_user=6, known=0.3, shift=0.0):
    """Return labels, scores, users and true click probabilities.

    A user's taste raises all their rows; the model knows a share `known` of it and adds `shift` to the logit. Users have
    half, once or one and a half times `rows_per_user` rows, and those of many rows are easier, so that GAUC is not the mean.
    """
    factor = 0.5 + np.arange(num_users) % 3 / 2
    users = np.repeat(np.arange(num_users), (rows_per_user * factor).astype(int))
    taste = rng.normal(size=num_users)[users]
    situation = factor[users] * rng.normal(size=len(users)) - 0.5
    truth = 1 / (1 + np.exp(-taste - situation))
    labels = (rng.random(len(users)) < truth).astype(float)
    return labels, 1 / (1 + np.exp(-known * taste - situation - shift)), users, truth


def within_binomial_bounds(covered, draws, level):
    """Return whether a share `covered` of `draws` lies within 3 standard errors of the level."""
    return abs(covered / draws - level) <= 3 * (level * (1 - level) / draws) ** 0.5
