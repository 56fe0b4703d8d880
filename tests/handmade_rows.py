"""Impressions and events as the slow definitions read them, and the keys whose sums each of them touches."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

from bahe_tasks.running_sums import title_tokens

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Impression:
    """`dt` and times are days and microseconds since 1970."""

    name: str
    dt: int
    user: str
    item: str
    title: str | None
    shown_us: int
    label: int
    known_us: int
    cat: dict[str, str | None] = field(default_factory=dict)
    """Column without its prefix → value, its item's among them."""

    @property
    def is_late(self) -> bool:
        return self.shown_us < self.dt * DAY_US

    @property
    def label_day(self) -> int:
        return max(self.dt, self.known_us // DAY_US)

    def touched(self) -> list[tuple[str, ...]]:
        return [*keys_of(self.user, self.item, self.title), *self.cats()]

    def cats(self) -> list[tuple[str, ...]]:
        return [("cat", name, value) for name, value in self.cat.items() if value is not None]


@dataclass(frozen=True)
class Event:
    """Something a user did; `item` and `value` may be None."""

    dt: int
    user: str
    item: str | None
    text: str
    feature: str
    occurred_us: int
    value: float | None

    def touched(self) -> list[tuple[str, ...]]:
        return keys_of(self.user, self.item, self.text)


def keys_of(user: str, item: str | None, text: str | None) -> list[tuple[str, ...]]:
    tokens = [] if text is None else title_tokens(text)
    items = [] if item is None else [("item", item), ("user_item", user, item)]
    return [("log",), ("user", user), *items, *[("token", t) for t in tokens], *[("pair", user, t) for t in tokens]]


def day_of(number: int) -> date:
    """Return the day that is so many days after 1970-01-01."""
    return date(1970, 1, 1) + timedelta(days=number)
