"""One day of the synthetic log: what the users of a block do and click, and how the items change.

Users come in blocks, each drawn from (seed, day, block) and written to its own file, so that memory does not grow with
the log. Rows are columns by name; a missing optional value is `None`, or NaN in a column of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from bahe_tasks.sources.synthetic.click_model import DEVICES, click_probability
from bahe_tasks.sources.synthetic.phrases import FEATURES, PhraseBook
from bahe_tasks.sources.synthetic.population import Items, World
from bahe_tasks.sources.synthetic.vocabulary import TOPICS

Rows = dict[str, np.ndarray]

DAY_MS = 86_400_000
_FEATURE_SHARES = {"searches": 0.6, "bills": 0.28, "visits": 0.12}
_FOLLOW_UP_SHARE = 0.3
_LATE_DAYS = 2


@dataclass(frozen=True)
class Shelf:
    """The day's items, topic after topic, to be drawn by weight: topic k owns cumulative weights from `low[k]` to
    `high[k]`; `order` gives the item number of each place."""

    order: np.ndarray
    cumulative: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def draw(self, topics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one item number for each topic number."""
        target = self.low[topics] + rng.random(len(topics)) * (self.high[topics] - self.low[topics])
        place = np.searchsorted(self.cumulative, target, side="right")
        return self.order[np.minimum(place, len(self.order) - 1)]


@dataclass(frozen=True)
class BlockLog:
    """What one block of users did. `probability` (B,) belongs to the rows of `impressions`."""

    events: Rows
    impressions: Rows
    probability: np.ndarray
    late_rows: int


def shelf(items: Items) -> Shelf:
    """Return the day's items as they are shown: the young and the good ones more often."""
    order = np.argsort(items.topic, kind="stable")
    weight = np.exp(items.quality[order]) / np.sqrt(1.0 + items.age_days[order])
    cumulative = np.cumsum(weight)
    ends = np.searchsorted(items.topic[order], np.arange(len(TOPICS)), side="right")
    high = np.concatenate([[0.0], cumulative])[ends]
    return Shelf(order=order, cumulative=cumulative, low=np.concatenate([[0.0], high[:-1]]), high=high)


def item_rows(world: World, day: date) -> Rows:
    """Return the day's rows of the item change log: new items and new prices."""
    items = world.items
    changed = np.flatnonzero(np.isfinite(items.changed_at_s))
    return {
        "item_id": _numbered("i", changed),
        "title": items.title[changed],
        "updated_at": iso_times(day, (items.changed_at_s[changed] * 1000).astype(np.int64)),
        "cat_category": _topic_names()[items.category[changed]],
        "num_price": items.new_price[changed],
    }


def block_log(
    world: World,
    day: date,
    block: slice,
    *,
    shelf: Shelf,
    books: dict[str, PhraseBook],
    impressions_per_user: float,
    events_per_user: float,
    late_share: float,
    seed: int,
) -> BlockLog:
    """Return the log of the users `block` on `day`, each table by time."""
    rng = np.random.default_rng([seed, world.day, 2, block.start])
    users, items = world.users, world.items
    activity, taste = users.activity[block], users.taste[block]

    shown = np.repeat(np.arange(len(activity)), rng.poisson(impressions_per_user * activity))
    seen = _topics(shown_shares(taste), shown, rng)
    item = shelf.draw(seen, rng)
    shown_ms = (rng.beta(4.0, 2.0, len(shown)) * DAY_MS).astype(np.int64)
    device = rng.choice(len(DEVICES), len(shown), p=(0.6, 0.1, 0.3))
    position = rng.integers(1, 6, len(shown))
    topic = items.topic[item]
    probability = click_probability(
        taste=taste[shown, topic],
        appeal=world.appeal[topic],
        quality=items.quality[item],
        eagerness=users.eagerness[block][shown],
        price=np.where(shown_ms >= items.changed_at_s[item] * 1000, items.new_price[item], items.price[item]),
        position=position,
        device=device,
        hour=shown_ms / 3_600_000,
    )
    clicked = rng.random(len(shown)) < probability
    hour = shown_ms // 3_600_000

    done = np.repeat(np.arange(len(activity)), rng.poisson(events_per_user * activity))
    done_topic = _topics(done_shares(taste), done, rng)
    feature = rng.choice(len(FEATURES), len(done), p=[_FEATURE_SHARES[name] for name in FEATURES])
    done_ms = (rng.beta(2.0, 2.0, len(done)) * DAY_MS).astype(np.int64)
    text = np.empty(len(done), dtype=object)
    for number, name in enumerate(FEATURES):
        text[feature == number] = books[name].draw(done_topic[feature == number], rng)

    # A click may be followed, before the day ends, by a visit of the item: its text is the title, word for word.
    visit = np.flatnonzero(clicked & (rng.random(len(shown)) < _FOLLOW_UP_SHARE))
    left_ms = DAY_MS - 1 - shown_ms[visit]
    visit_ms = shown_ms[visit] + np.minimum(left_ms, 1 + (rng.random(len(visit)) ** 3 * left_ms).astype(np.int64))

    all_ms = np.concatenate([done_ms, visit_ms])
    all_feature = np.concatenate([feature, np.full(len(visit), FEATURES.index("visits"))])
    late_events, event_shift = _late(len(all_ms), late_share, rng)
    late_shown, shown_shift = _late(len(shown), late_share, rng)
    events: Rows = {
        "user_id": _numbered("u", block.start + np.concatenate([done, shown[visit]])),
        "feature": np.array(FEATURES, dtype=object)[all_feature],
        "occurred_at": iso_times(day, all_ms - event_shift),
        "text": np.concatenate([text, items.title[item[visit]]]),
        "item_id": np.concatenate([np.full(len(done), None, dtype=object), _numbered("i", item[visit])]),
        "value": _values(all_feature, rng),
    }
    impressions: Rows = {
        "impression_id": np.array([f"{day:%Y%m%d}-{block.start}-{n}" for n in range(len(shown))], dtype=object),
        "user_id": _numbered("u", block.start + shown),
        "item_id": _numbered("i", item),
        "shown_at": iso_times(day, shown_ms - shown_shift),
        "label": clicked.astype(np.int64),
        "cat_device": np.array(DEVICES, dtype=object)[device],
        "num_position": position,
        "num_hour": hour,
    }
    by_time = np.argsort(shown_ms - shown_shift, kind="stable")
    return BlockLog(
        events=rows_at(events, np.argsort(all_ms - event_shift, kind="stable")),
        impressions=rows_at(impressions, by_time),
        probability=probability[by_time],
        late_rows=late_events + late_shown,
    )


def shown_shares(taste: np.ndarray) -> np.ndarray:
    """Return how often each topic is shown to users of these tastes, (users, topics) each."""
    return 0.5 / len(TOPICS) + 0.5 * _softmax(taste)


def done_shares(taste: np.ndarray) -> np.ndarray:
    """Return how often users of these tastes do something about each topic, (users, topics) each."""
    return 0.9 * _softmax(2.0 * taste) + 0.1 / len(TOPICS)


def rows_at(rows: Rows, places: np.ndarray) -> Rows:
    """Return the rows at these places, in this order."""
    return {name: column[places] for name, column in rows.items()}


def row_count(rows: Rows) -> int:
    """Return the number of rows."""
    return len(next(iter(rows.values())))


def iso_times(day: date, ms: np.ndarray) -> np.ndarray:
    """Return ISO 8601 texts (UTC) of the milliseconds `ms` after the start of the day."""
    times = np.datetime64(day.isoformat(), "ms") + ms.astype("timedelta64[ms]")
    return np.char.add(np.datetime_as_string(times, unit="ms"), "Z").astype(object)


def _late(count: int, share: float, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return how many of `count` rows land late, and by how many milliseconds each row's time lies earlier."""
    late_days = np.where(rng.random(count) < share, rng.integers(1, _LATE_DAYS + 1, count), 0)
    return int(np.count_nonzero(late_days)), late_days * DAY_MS


def _values(feature: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the strength of each event: an amount for a bill, seconds for a visit, none (NaN) for a search."""
    amount = np.round(rng.lognormal(3.0, 1.0, len(feature)), 2)
    seconds = np.floor(rng.lognormal(4.0, 1.0, len(feature)))
    is_bill, is_visit = feature == FEATURES.index("bills"), feature == FEATURES.index("visits")
    return np.where(is_bill, amount, np.where(is_visit, seconds, np.nan))


def _topics(share: np.ndarray, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a topic for each entry of `user`, by that user's shares (users, topics)."""
    cumulative = np.cumsum(share, axis=1)
    cumulative[:, -1] = 1.0
    return (rng.random((len(user), 1)) >= cumulative[user]).sum(axis=1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _numbered(letter: str, numbers: np.ndarray) -> np.ndarray:
    return np.array([f"{letter}{number:06d}" for number in numbers.tolist()], dtype=object)


def _topic_names() -> np.ndarray:
    return np.array([topic.name for topic in TOPICS], dtype=object)
