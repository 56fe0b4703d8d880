"""What an observer of the synthetic log knows who knows how it is made, all but what was drawn: topics of texts, the terms of the click
model that stand in the log, and how often users who love, dislike or are lukewarm about a topic are shown it and do something about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.sources.synthetic.click_model import DEVICES, click_probability
from bahe_tasks.sources.synthetic.day_log import done_shares, shown_shares
from bahe_tasks.sources.synthetic.population import DISLIKED, LOVED, TASTES, first_world
from bahe_tasks.sources.synthetic.vocabulary import TOPICS

_HOUR_US = 3_600_000_000
_DRAWN_USERS = 20_000
_GRID = 60
"""Quantiles that stand for the shares of a topic among users of one class."""


class Shares(NamedTuple):
    """How often a topic comes, of users to whom it is of each class (`TASTES`): (classes, quantiles) each."""

    shown: torch.Tensor
    done: torch.Tensor


def topics_of(texts: Iterable[str]) -> np.ndarray:
    """Return the topic of each text, that of the longest of its words: (M,) int64. Raises `ValueError` for a text of no topic."""
    return np.array([_topic_of(text) for text in texts], np.int64)


def _topic_of(text: str) -> int:
    words = [[*topic.things, *topic.doings, *topic.places] for topic in TOPICS]
    longest = [max((len(word) for word in of if word in text.lower()), default=0) for of in words]
    if not any(longest):
        raise ValueError(f"{text!r} is about no topic of the synthetic log")
    return int(np.argmax(longest))


def known_logits(rows: ImpressionRows) -> np.ndarray:
    """Return the click model's logit of each impression without what was drawn, (R,); a price not landed yet is the item's next."""
    prices = pd.Series(rows.num["price"]).groupby(rows.item_ids).bfill().to_numpy()
    nothing = np.zeros(len(rows))
    p = click_probability(
        taste=nothing,
        appeal=nothing,
        quality=nothing,
        eagerness=nothing,
        price=prices,
        position=rows.num["position"],
        device=np.array([DEVICES.index(device) for device in rows.cat["device"]]),
        hour=rows.shown_at / _HOUR_US % 24,
    )
    return np.log(p / (1 - p))


def shares_by_class() -> Shares:
    """Return the shares of topics among users drawn anew."""
    taste = first_world(users=_DRAWN_USERS, seed=0).users.taste
    order = np.argsort(
        -taste, axis=1
    )  # classes hardly overlap: the spread within them is a quarter of what parts the nearest
    classes = np.empty_like(order)
    np.put_along_axis(classes, order, np.repeat([0, 2, 1], [LOVED, len(TOPICS) - LOVED - DISLIKED, DISLIKED])[None], 1)
    quantiles = (np.arange(_GRID) + 0.5) / _GRID

    def of(share: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.array([np.quantile(share[classes == c], quantiles) for c in range(len(TASTES))]))

    return Shares(of(shown_shares(taste)), of(done_shares(taste)))


def class_evidence(counts: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return log P(how often each topic came | class): counts (U, topics) float64, shares (classes, quantiles) → (U, topics, classes)."""
    others = counts.sum(1, keepdim=True) - counts
    of_each = counts[..., None, None] * torch.log(shares) + others[..., None, None] * torch.log1p(-shares)
    return torch.logsumexp(of_each, -1)


def log_evidence(scores: torch.Tensor) -> torch.Tensor:
    """Return log Σ exp(the sum of chosen scores) over all ways to choose a class for each topic that make `LOVED` of the
    first, `DISLIKED` of the second: scores (U, topics, classes) → (U,). Its gradient is each class's probability.
    """
    ways = scores.new_full((len(scores), LOVED + 1, DISLIKED + 1), -1e9)
    ways[:, 0, 0] = 0
    for topic in scores.unbind(1):
        loved, disliked, lukewarm = (score[:, None, None] for score in topic.unbind(1))
        one_more_loved = functional.pad(ways[:, :-1], (0, 0, 1, 0), value=-1e9)
        one_more_disliked = functional.pad(ways[:, :, :-1], (1, 0), value=-1e9)
        ways = torch.logsumexp(
            torch.stack([one_more_loved + loved, one_more_disliked + disliked, ways + lukewarm]), dim=0
        )
    return ways[:, LOVED, DISLIKED]
