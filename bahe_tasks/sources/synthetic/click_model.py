"""The truth behind the synthetic clicks: the probability that an impression is clicked.

    logit = bias + taste[user, topic of item] + appeal[topic, day] + quality[item] + eagerness[user]
            − 0.4 · z(price) − 0.25 · position + 0.4 · [phone] + 0.2 · cos(2π (hour − 21) / 24)

z(price) is the price's distance from the mean in logarithms, in standard deviations. The scale of the terms is set so
that the best reachable AUC is between 0.80 and 0.85, of which what is the same for all users (appeal, quality, numbers)
gives about 0.74: a model gains from day one, and the rest it must read from the histories.
"""

from __future__ import annotations

import numpy as np

DEVICES = ("phone", "tablet", "desktop")
BIAS = -1.3
_LOG_PRICE_MEAN, _LOG_PRICE_STD = 3.0, 0.8


def click_probability(
    *,
    taste: np.ndarray,
    appeal: np.ndarray,
    quality: np.ndarray,
    eagerness: np.ndarray,
    price: np.ndarray,
    position: np.ndarray,
    device: np.ndarray,
    hour: np.ndarray,
) -> np.ndarray:
    """Return (B,) probabilities; all arguments are (B,): `device` indexes DEVICES, `hour` is of the day in UTC."""
    logit = (
        BIAS
        + taste
        + appeal
        + quality
        + eagerness
        - 0.4 * (np.log(price) - _LOG_PRICE_MEAN) / _LOG_PRICE_STD
        - 0.25 * position
        + 0.4 * (device == DEVICES.index("phone"))
        + 0.2 * np.cos(2 * np.pi * (hour - 21) / 24)
    )
    return 1.0 / (1.0 + np.exp(-logit))
