"""Who and what there is in the synthetic world: users with tastes, items with titles and prices, day by day.

The world grows and changes in the order of the days: each day brings a cohort of users and of items, moves some prices
and lets the appeal of the topics drift. Everything a day adds is drawn from (seed, day) alone, so a day does not depend
on how many days follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bahe_tasks.sources.synthetic.phrases import titles
from bahe_tasks.sources.synthetic.vocabulary import TOPICS

NEW_USERS_SHARE = 0.05
"""New users a day, as a share of the first day's."""
FIRST_ITEMS_PER_USER = 2.0
NEW_ITEMS_PER_USER = 0.3
REPRICED_SHARE = 0.03
"""Share of the items whose price changes on a day; each such change is a new row of the item's change log."""
TASTES = (1.6, -1.3, -0.2)
"""Mean taste for the `LOVED` topics a user loves, the `DISLIKED` it dislikes, and the rest."""
LOVED, DISLIKED = 3, 4
OWN_STD = 0.3
"""Of a taste about its mean, of a user's eagerness and of an item's quality."""
APPEAL_STD = 0.9
APPEAL_KEPT = 0.97
"""Share of a topic's appeal that stays from day to day; what is added keeps its deviation."""


@dataclass(frozen=True)
class Users:
    """U users, by number. `taste` (U, topics): what they click and do; `eagerness` (U,): their own click bias;
    `activity` (U,): how much they do, mean about 1."""

    taste: np.ndarray
    eagerness: np.ndarray
    activity: np.ndarray

    @property
    def count(self) -> int:
        return len(self.activity)


@dataclass(frozen=True)
class Items:
    """I items, by number. `quality` (I,) is their own click bias; `price` (I,) the one before this day's change;
    `age_days` (I,); `changed_at_s` (I,) second of this day at which a row of the item lands, infinite where none does;
    `new_price` (I,) the price from that second on."""

    title: np.ndarray
    topic: np.ndarray
    category: np.ndarray
    quality: np.ndarray
    price: np.ndarray
    age_days: np.ndarray
    changed_at_s: np.ndarray
    new_price: np.ndarray


_Cohort = TypeVar("_Cohort", Users, Items)


@dataclass(frozen=True)
class World:
    """The state of one day (number `day`, from 0). `appeal` (topics,): how much everybody likes a topic today."""

    day: int
    users: Users
    items: Items
    appeal: np.ndarray


def first_world(*, users: int, seed: int) -> World:
    """Return the world of day 0, with `users` users."""
    rng = np.random.default_rng([seed, 0, 1])
    appeal = rng.permutation(np.linspace(-1.0, 1.0, len(TOPICS))) * APPEAL_STD * np.sqrt(3.0)
    items = _new_items(round(users * FIRST_ITEMS_PER_USER), first_day=True, rng=rng)
    return World(day=0, users=_new_users(users, rng=rng), items=items, appeal=appeal)


def next_world(world: World, *, users: int, seed: int) -> World:
    """Return the day after `world`; `users` is the number of the first day."""
    day = world.day + 1
    rng = np.random.default_rng([seed, day, 1])
    drifted = APPEAL_KEPT * world.appeal + rng.normal(0.0, APPEAL_STD * np.sqrt(1 - APPEAL_KEPT**2), len(TOPICS))
    known = world.items
    count = len(known.topic)
    repriced = rng.random(count) < REPRICED_SHARE
    price = known.new_price
    old = Items(
        title=known.title,
        topic=known.topic,
        category=known.category,
        quality=known.quality,
        price=price,
        age_days=known.age_days + 1,
        changed_at_s=np.where(repriced, np.floor(rng.random(count) * 86_400), np.inf),
        new_price=np.where(repriced, np.round(price * np.exp(rng.normal(0.0, 0.3, count)), 2), price),
    )
    new = _new_items(max(1, round(users * NEW_ITEMS_PER_USER)), first_day=False, rng=rng)
    newcomers = _new_users(max(1, round(users * NEW_USERS_SHARE)), rng=rng)
    return World(day=day, users=_joined(world.users, newcomers), items=_joined(old, new), appeal=drifted)


def _new_users(count: int, *, rng: np.random.Generator) -> Users:
    """Return users who each love a few topics, dislike a few more and are lukewarm about the rest."""
    ranks = rng.random((count, len(TOPICS)), dtype=np.float32).argsort(axis=1).argsort(axis=1)
    loved, disliked, lukewarm = TASTES
    taste = np.where(ranks < LOVED, loved, np.where(ranks < LOVED + DISLIKED, disliked, lukewarm))
    return Users(
        taste=(taste + rng.normal(0.0, OWN_STD, taste.shape)).astype(np.float32),
        eagerness=rng.normal(0.0, OWN_STD, count),
        activity=rng.lognormal(-0.18, 0.6, count),
    )


def _new_items(count: int, *, first_day: bool, rng: np.random.Generator) -> Items:
    """Return new items: all there from midnight on the first day, else appearing before 6 o'clock."""
    topic = rng.integers(0, len(TOPICS), count)
    shuffled = rng.integers(0, len(TOPICS), count)
    price = np.round(rng.lognormal(3.0, 0.8, count), 2)
    return Items(
        title=titles(topic, rng),
        topic=topic,
        category=np.where(rng.random(count) < 0.75, topic, shuffled),
        quality=rng.normal(0.0, OWN_STD, count),
        price=price,
        age_days=rng.integers(0, 30, count) if first_day else np.zeros(count, dtype=np.int64),
        changed_at_s=np.zeros(count) if first_day else np.floor(rng.random(count) * 6 * 3600),
        new_price=price,
    )


def _joined(old: _Cohort, new: _Cohort) -> _Cohort:
    """Return the two cohorts as one, the old first: numbers never change."""
    columns = {name: np.concatenate([column, getattr(new, name)]) for name, column in vars(old).items()}
    return type(old)(**columns)
